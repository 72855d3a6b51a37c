//! What the two sides of the gateway share of HTTP/1.1 (RFC 9112): classes of bytes, and where a chunked body ends.
//!
//! The side of the clients is `server`, the side of the upstreams is `proxy`. Both are strict: what could be read in two
//! ways is refused, never repaired.

pub(crate) mod chunked;
pub(crate) mod grammar;

/// Most header fields in one head, and most trailers of one body.
pub(crate) const MAX_FIELDS: usize = 100;
