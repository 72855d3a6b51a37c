//! A request on its way through the stack: the one that HTTP knows, and what the steps learn about it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::body::Body;

use super::Exchange;

/// A request and its exchange. Both are pointers, because every layer hands them on. The exchange stands beside the request
/// and not among its extensions: so it is always there, and found without a search.
pub struct Request {
    /// The request; without the lines that only pass ([`Request::gather`]).
    pub http: Box<http::Request<Body>>,
    /// What is known of it.
    pub exchange: Arc<Exchange>,
}

impl Request {
    /// Puts the lines that are not among the headers there. Whoever looks at a field that may pass in a line
    /// (`http1/names.rs`), or at all fields, calls this first.
    pub fn gather(&mut self) {
        self.exchange.gather(self.http.headers_mut());
    }

    /// Puts the credential among the headers, too.
    pub fn gather_authorization(&mut self) {
        self.exchange.gather_authorization(self.http.headers_mut());
    }
}

impl Deref for Request {
    type Target = http::Request<Body>;

    fn deref(&self) -> &Self::Target {
        &self.http
    }
}

impl DerefMut for Request {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.http
    }
}

/// Without headers and path: they tell who the caller is.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("method", self.method()).finish_non_exhaustive()
    }
}
