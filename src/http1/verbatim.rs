//! Header lines of a client that nobody between it and the service looks at: they are passed on as they came. Beside them the
//! one credential that is looked at, and mostly not passed on.
//!
//! Most lines of most requests are of this kind. A header map would cost, for each of them, a check of bytes that the guard
//! has checked, a hash, two counts of references, and the making of the same line again.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::forbidden::is_forbidden;

/// Lines of one head, each with its end. Their names and values are within the grammar (RFC 9110, section 5).
#[derive(Default, Clone)]
pub struct Verbatim {
    /// The head that they stand in.
    head: Bytes,
    /// Lines that stand one below the other.
    runs: SmallVec<[(u32, u32); 2]>,
    /// The value of the one `Authorization`, which is none of these lines.
    authorization: Option<(u32, u32)>,
}

impl Verbatim {
    /// None yet, of this head.
    pub(crate) fn of(head: Bytes) -> Self {
        Self { head, runs: SmallVec::new(), authorization: None }
    }

    /// Adds the line that stands here in the head, whose lines before it are there already.
    pub(crate) fn add(&mut self, start: u32, end: u32) {
        match self.runs.last_mut() {
            Some((_, last)) if *last == start => *last = end,
            _ => self.runs.push((start, end)),
        }
    }

    /// The value of `Authorization` stands here.
    pub(crate) fn authorize(&mut self, start: u32, end: u32) {
        self.authorization = Some((start, end));
    }

    /// The value of `Authorization`, if it stands here and not among the headers. It is never passed on with the lines.
    pub fn authorization(&self) -> Option<&[u8]> {
        self.authorization.map(|(start, end)| &self.head[start as usize..end as usize])
    }

    /// The same as a header.
    pub fn authorization_header(&self) -> Option<HeaderValue> {
        let (start, end) = self.authorization?;
        HeaderValue::from_maybe_shared(self.head.slice(start as usize..end as usize)).ok()
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Appends all lines.
    pub fn push_lines(&self, out: &mut Vec<u8>) {
        for &(start, end) in &self.runs {
            out.extend_from_slice(&self.head[start as usize..end as usize]);
        }
    }

    /// The fields, in their order.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let runs = self.runs.iter().map(|&(start, end)| self.head.slice(start as usize..end as usize));
        runs.flat_map(|run| {
            let mut start = 0;
            std::iter::from_fn(move || {
                let end = start + memchr::memchr(b'\n', &run[start..])?;
                let line = run.slice(start..end - 1);
                start = end + 1;
                let colon = memchr::memchr(b':', &line)?;
                // Of the grammar, so neither of them fails.
                let name = HeaderName::from_bytes(&line[..colon]).ok()?;
                Some((name, HeaderValue::from_maybe_shared(line.slice(colon + 2..)).ok()?))
            })
        })
    }
}

/// Without values: they may tell who the caller is.
impl std::fmt::Debug for Verbatim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verbatim").field("runs", &self.runs.len()).finish_non_exhaustive()
    }
}

/// Whether a field of a name that the table of names does not have may pass: one that somebody made up (`X-App-Version`), and
/// that is none of those which a client may not send.
pub(crate) fn is_passing_custom(name: &[u8]) -> bool {
    matches!(name, [b'x' | b'X', b'-', ..]) && !is_forbidden(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(head: &'static str, lines: &[(u32, u32)]) -> Verbatim {
        let mut verbatim = Verbatim::of(Bytes::from_static(head.as_bytes()));
        lines.iter().for_each(|(start, end)| verbatim.add(*start, *end));
        verbatim
    }

    #[test]
    fn lines_are_passed_on_as_they_stand() {
        let head = "X-A: 1\r\nHost: h\r\nx-B: 2\r\nX-c: \r\n\r\n";
        let verbatim = of(head, &[(0, 8), (17, 25), (25, 32)]);
        assert_eq!(verbatim.runs.len(), 2);
        let mut out = b"x\n".to_vec();
        verbatim.push_lines(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "x\nX-A: 1\r\nx-B: 2\r\nX-c: \r\n");
        let fields: Vec<_> =
            verbatim.fields().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        assert_eq!(fields, ["x-a=1", "x-b=2", "x-c="]);
        assert!(!verbatim.is_empty() && Verbatim::default().is_empty());
    }

    #[test]
    fn a_credential_is_not_passed_on_with_the_lines() {
        let mut verbatim = of("X-A: 1\r\nAuthorization: Bearer t\r\n\r\n", &[(0, 8)]);
        verbatim.authorize(23, 31);
        assert_eq!(verbatim.authorization(), Some(&b"Bearer t"[..]));
        assert_eq!(verbatim.authorization_header().unwrap(), "Bearer t");
        let mut out = Vec::new();
        verbatim.push_lines(&mut out);
        assert_eq!(out, b"X-A: 1\r\n");
        assert_eq!(verbatim.fields().count(), 1);
    }

    #[test]
    fn what_somebody_made_up_passes_unless_it_could_be_read_as_ours() {
        for name in ["x-app-version", "X-Pad", "x-auth-sub", "x-wechat-thing", "x-"] {
            assert!(is_passing_custom(name.as_bytes()), "{name}");
        }
        for name in ["X-WX-OPENID", "x_wx_openid", "X-Wx_Openid", "X-Forwarded-Port", "x-wxgate-a", "x", "y-a", "X_A"] {
            assert!(!is_passing_custom(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn values_are_not_shown() {
        assert!(!format!("{:?}", of("X-A: secret\r\n", &[(0, 13)])).contains("secret"));
    }
}
