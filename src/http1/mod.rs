//! What the two sides of the gateway share of HTTP/1.1 (RFC 9112): classes of bytes, header lines, and
//! bodies on their way in and out.
//!
//! The side of the clients is `server`, the side of the upstreams is `proxy`. Both are strict: what could be read in two
//! ways is refused, never repaired.

pub(crate) mod chunked;
pub(crate) mod forbidden;
pub(crate) mod grammar;
pub(crate) mod lines;
pub(crate) mod marks;
pub(crate) mod names;
pub(crate) mod outgoing;
pub(crate) mod receiving;
pub(crate) mod verbatim;

/// Most header fields in one head, and most trailers of one body.
pub(crate) const MAX_FIELDS: usize = 100;
