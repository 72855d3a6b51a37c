//! A connection that leaves HTTP (RFC 9110, section 7.8): the handshake with the upstream, and the tunnel behind its 101.

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use tokio::time::Instant;

use super::error::Violation;
use super::exchange::Answer;
use super::headers;
use super::response_body::Hold;
use super::response_head::Head;
use super::{Error, Limits};
use crate::body::Body;
use crate::tunnel::{self, Switched, Tunnel};

/// `Connection: upgrade`.
const UPGRADES: HeaderValue = HeaderValue::from_static("upgrade");

/// Asks the upstream for `protocol`; what the client wrote to that end is gone.
pub(super) fn ask(headers: &mut HeaderMap, protocol: &HeaderValue) {
    headers.insert(CONNECTION, UPGRADES);
    headers.insert(UPGRADE, protocol.clone());
}

/// The client's 101 and the tunnel behind it, from the upstream's 101.
///
/// # Errors
/// When the upstream has switched to something else.
pub(super) fn switch(
    (Head { parts: mut head, .. }, early): Answer,
    mut hold: Hold,
    protocol: &HeaderValue,
    limits: &Limits,
    total: Option<Instant>,
) -> Result<Response<Body>, Error> {
    let Some(connection) = hold.connection.take_if(|_| is_to(&head.headers, protocol)) else {
        return Err(hold.fail(Error::Protocol(Violation::UnaskedSwitch)));
    };
    // What else the connection held is memory that a socket at rest need not hold.
    let tcp = connection.tcp;
    headers::clean(&mut head);
    // A 101 has no body, whatever its head says (RFC 9112, section 6.3).
    head.headers.remove(http::header::CONTENT_LENGTH);
    head.headers.insert(CONNECTION, UPGRADES);
    head.headers.insert(UPGRADE, protocol.clone());
    let websocket = protocol.as_bytes() == b"websocket";
    let mut tunnel = Tunnel::new(tcp, early, websocket, tunnel::Limits { idle: limits.idle, total });
    // The backend counts it as in flight until then.
    tunnel.at_end(move |_| drop(hold));
    debug_assert_eq!(head.status, StatusCode::SWITCHING_PROTOCOLS);
    head.extensions.insert(Switched::new(tunnel));
    Ok(Response::from_parts(head, Body::empty()))
}

/// Whether this 101 is for `protocol` and nothing else.
fn is_to(headers: &HeaderMap, protocol: &HeaderValue) -> bool {
    let mut named = headers.get_all(UPGRADE).iter();
    let one = named.next().is_some_and(|named| named.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()));
    one && named.next().is_none()
}
