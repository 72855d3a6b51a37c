//! Names of fields that a client may not send: identity, hop-by-hop and forwarding fields, in every spelling.
//!
//! Services behind CGI, WSGI, PHP or nginx fold `_`, `.` and other characters of a name to one, so names are compared folded:
//! what could arrive there as `X-WX-OPENID` is forbidden. `pipeline/hygiene.rs` removes them.

/// Longest name of a protected header; longer names are compared by their first bytes.
const LONGEST: usize = 40;

/// Names that a client may not send, beside those with an `x` in front: [`is_forbidden_x`].
const FORBIDDEN: [&[u8]; 31] = [
    // Hop-by-hop (RFC 9110, section 7.6.1; RFC 9112, appendix). `Transfer-Encoding` goes because the body is
    // framed anew; its length, known or not, travels with the body itself.
    b"keep-alive",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"proxy-connection",
    b"proxy-authorization",
    b"proxy-authenticate",
    b"proxy-authentication-info",
    b"proxy",
    b"http2-settings",
    // Answered by us when the body is read.
    b"expect",
    // Forwarding and tracing: rebuilt.
    b"forwarded",
    b"via",
    b"traceparent",
    b"tracestate",
    b"true-client-ip",
    b"cf-connecting-ip",
    b"cf-connecting-ipv6",
    b"client-ip",
    b"fastly-client-ip",
    b"cluster-client-ip",
    // Identities that other gateways inject.
    b"remote-user",
    b"remote-groups",
    b"remote-email",
    b"remote-name",
    b"remote-addr",
    b"ssl-client-verify",
    b"ssl-client-s-dn",
    b"ssl-client-cert",
    b"tailscale-user-login",
];

/// How long forbidden names are that begin with each letter: one bit for each length.
const LENGTHS: [u64; 26] = {
    let mut lengths = [0; 26];
    let mut n = 0;
    while n < FORBIDDEN.len() {
        lengths[(FORBIDDEN[n][0] - b'a') as usize] |= 1 << FORBIDDEN[n].len();
        n += 1;
    }
    lengths[(b'x' - b'a') as usize] = u64::MAX;
    lengths
};

/// Whether a client may not send a field of this name, in whatever case.
pub(crate) fn is_forbidden(name: &[u8]) -> bool {
    // First letter and length decide for nearly all ordinary headers. A folding character cannot stand first in a name that
    // folds to a protected one.
    let first = name.first().map_or(usize::MAX, |first| usize::from(first.to_ascii_lowercase().wrapping_sub(b'a')));
    if LENGTHS.get(first).is_none_or(|lengths| lengths >> name.len().min(LONGEST) & 1 == 0) {
        return false;
    }
    let mut folded = [0u8; LONGEST];
    let len = name.len().min(LONGEST);
    for (to, from) in folded.iter_mut().zip(name) {
        *to = if from.is_ascii_alphanumeric() { from.to_ascii_lowercase() } else { b'-' };
    }
    let folded = &folded[..len];
    match folded[0] {
        b'x' => is_forbidden_x(folded),
        _ => FORBIDDEN.contains(&folded),
    }
}

fn is_forbidden_x(folded: &[u8]) -> bool {
    let prefixes: [&[u8]; 9] = [
        b"x-wx-",
        b"x-wxgate-",
        b"x-forwarded-",
        b"x-auth-request-",
        b"x-original-",
        b"x-authenticated-",
        b"x-remote-",
        b"x-ssl-client-",
        b"x-envoy-",
    ];
    if prefixes.iter().any(|p| folded.starts_with(p)) {
        return true;
    }
    matches!(
        folded,
        b"x-wx"
            | b"x-wxgate"
            | b"x-forwarded"
            | b"x-real-ip"
            | b"x-client-ip"
            | b"x-cluster-client-ip"
            | b"x-rewrite-url"
            | b"x-http-method-override"
            | b"x-http-method"
            | b"x-method-override"
            | b"x-request-id"
            | b"x-webauth-user"
            | b"x-auth-user"
            | b"x-goog-authenticated-user-email"
            | b"x-ms-client-principal"
            | b"x-accel-redirect"
    )
}
