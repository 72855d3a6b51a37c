//! Header lines that are written before they are needed: what many requests have in common is made once, and then copied.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

/// The parts of a line. The types keep everything out that could end it early.
fn line<'a>(name: &'a HeaderName, value: &'a HeaderValue) -> [&'a [u8]; 4] {
    [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]
}

/// All of these as lines.
pub(crate) fn lines(fields: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> Bytes {
    let mut out = Vec::with_capacity(512);
    for (name, value) in fields {
        line(&name, &value).iter().for_each(|part| out.extend_from_slice(part));
    }
    out.into()
}

/// What the gateway adds to a request, as lines that stand behind those of the request itself. Whoever adds a line here has
/// seen to it that the request has no header of that name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines {
    /// Who the caller is; the same for all requests with one token.
    pub(crate) caller: Bytes,
    /// Which way it came; the same for most requests of one connection.
    pub(crate) way: Bytes,
    /// What is this request's own.
    pub(crate) own: SmallVec<[u8; 160]>,
}

impl Lines {
    /// Adds a line of this request's own.
    pub(crate) fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        line(name, value).iter().for_each(|part| self.own.extend_from_slice(part));
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.caller.is_empty() && self.way.is_empty() && self.own.is_empty()
    }

    /// Appends all of them.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        [&self.caller[..], &self.way, &self.own].iter().for_each(|part| out.extend_from_slice(part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_one_below_the_other() {
        let (name, value) = (HeaderName::from_static("x-a"), HeaderValue::from_static("1"));
        let mut added = Lines { caller: lines([(name, value)]), way: lines([]), ..Lines::default() };
        added.add(&HeaderName::from_static("x-b"), &HeaderValue::from_static(""));
        let mut out = b"GET / HTTP/1.1\r\n".to_vec();
        added.write(&mut out);
        assert_eq!(out, b"GET / HTTP/1.1\r\nx-a: 1\r\nx-b: \r\n");
    }
}
