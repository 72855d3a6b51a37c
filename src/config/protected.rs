//! Headers that no rule of a route may touch: who the caller is, where a message ends, what concerns one hop alone, and
//! which way it came. They are the gateway's to write; a rule about them would undo a protection quietly.

use http::HeaderName;

use super::value::Wrong;

/// Whether a rule may change this header of a request.
///
/// # Errors
/// Why not.
pub fn request(name: &HeaderName) -> Result<(), Wrong> {
    let name = folded(name);
    one_hop(&name)?;
    const IDENTITY: [&str; 11] = [
        "x-wx",
        "x-auth-request-",
        "x-authenticated-",
        "x-remote-",
        "x-ssl-client-",
        "x-auth-user",
        "x-webauth-user",
        "x-goog-authenticated-user-email",
        "x-ms-client-principal",
        "remote-",
        "ssl-client-",
    ];
    if IDENTITY.iter().any(|start| name.starts_with(start)) || name == "tailscale-user-login" {
        return Err(wrong("says who the caller is"));
    }
    const WAY: [&str; 22] = [
        "forwarded",
        "x-forwarded",
        "x-original-",
        "x-envoy-",
        "via",
        "traceparent",
        "tracestate",
        "x-request-id",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "client-ip",
        "cluster-client-ip",
        "fastly-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "x-rewrite-url",
        "x-http-method",
        "x-method-override",
        "x-accel-redirect",
        "expect",
        "http2-settings",
    ];
    if WAY.iter().any(|start| name.starts_with(start)) {
        return Err(wrong("says which way the request came"));
    }
    Ok(())
}

/// Whether a rule may change this header of an answer.
///
/// # Errors
/// Why not.
pub fn response(name: &HeaderName) -> Result<(), Wrong> {
    let name = folded(name);
    one_hop(&name)?;
    if name.starts_with("x-wx") {
        return Err(wrong("is one of the gateway's own"));
    }
    Ok(())
}

/// Framing (RFC 9112, section 6), fields of one hop (RFC 9110, section 7.6.1), and the handshake of an upgrade.
fn one_hop(name: &str) -> Result<(), Wrong> {
    const FRAMING: [&str; 4] = ["content-length", "content-encoding", "content-range", "transfer-encoding"];
    if FRAMING.contains(&name) {
        return Err(wrong("says where the message ends, or how it is written"));
    }
    const HOP: [&str; 5] = ["connection", "keep-alive", "te", "trailer", "upgrade"];
    let handshake = name.starts_with("sec-websocket-") || name.starts_with("proxy");
    if HOP.contains(&name) || handshake {
        return Err(wrong("belongs to one connection"));
    }
    Ok(())
}

/// As services behind CGI read it, which fold other characters to one.
fn folded(name: &HeaderName) -> String {
    name.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn wrong(what: &str) -> Wrong {
    Wrong::silent(what, "remove it: the gateway writes it, and nobody else may")
}
