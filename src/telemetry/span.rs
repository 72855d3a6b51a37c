//! Which requests are recorded, and what is recorded of them (W3C Trace Context; OpenTelemetry's spans).
//!
//! Whoever began the trace decides, if a trusted proxy told us of it; else a part of the requests is taken, by the trace
//! id, so that everybody who goes by the same part takes the same. A request that is not taken costs the decision and
//! nothing else. No path, query, address or person stands in a span: the request id leads from it to the log line.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;

/// Attempts that are recorded of one request.
const MAX_ATTEMPTS: usize = 16;

/// Which part of the requests is recorded, where nobody else has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Trace ids whose second half is below this, of 2^63.
    below: u64,
}

/// Where a span stands: its trace, itself, and what it is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace.
    pub trace: [u8; 16],
    /// This span.
    pub span: [u8; 8],
    /// The span of whoever called, if we were told.
    pub parent: Option<[u8; 8]>,
}

impl Sampler {
    /// This part of the requests, 0 to 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` stays within bounds
    pub fn new(part: f64) -> Self {
        Self { below: (part.clamp(0., 1.) * 2_f64.powi(63)) as u64 }
    }

    /// Whether a request is recorded, and where its span stands. `own` is our id of it, 32 hex digits; `parent` what a
    /// trusted proxy sent as `traceparent`.
    pub fn decide(self, own: &[u8], parent: Option<&[u8]>) -> Option<SpanContext> {
        // The second half of an id is as good as random, and no two are equal.
        let span = digits::<8>(own.get(16..32)?)?;
        match parent {
            None => {
                let taken = u64::from_be_bytes(span) >> 1 < self.below;
                let trace = if taken { digits(own)? } else { return None };
                Some(SpanContext { trace, span, parent: None })
            }
            Some(text) => {
                let [flags] = digits(text.get(53..55)?)?;
                let taken = flags & 1 == 1;
                let trace = if taken { digits(text.get(3..35)?)? } else { return None };
                Some(SpanContext { trace, span, parent: Some(digits(text.get(36..52)?)?) })
            }
        }
    }
}

/// The value of lower-case hex digits, all of them.
fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    (text.len() == 2 * N).then_some(bytes)
}

impl SpanContext {
    /// `traceparent` for whoever is called next, where `span` calls: recorded.
    pub fn traceparent(&self, span: [u8; 8]) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
        let hex = |at: usize, bytes: &[u8], text: &mut [u8; 55]| {
            for (n, byte) in bytes.iter().enumerate() {
                text[at + 2 * n] = b"0123456789abcdef"[usize::from(byte >> 4)];
                text[at + 2 * n + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
            }
        };
        hex(3, &self.trace, &mut text);
        hex(36, &span, &mut text);
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// A request that is recorded.
#[derive(Debug)]
pub struct Recording {
    /// Where its span stands.
    pub context: SpanContext,
    /// Nobody else looks at it at the same time; it is a lock so that it may be shared.
    attempts: Mutex<Vec<Attempt>>,
}

/// One attempt to have an upstream answer. Times are since the request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its span.
    pub span: [u8; 8],
    /// Host and port of the server.
    pub server: String,
    /// When it began.
    pub began: Duration,
    /// When the next one began, or there was no answer: it failed.
    pub failed: Option<Duration>,
}

impl Recording {
    /// Of a request that goes on.
    pub fn new(context: SpanContext) -> Self {
        Self { context, attempts: Mutex::default() }
    }

    /// It is about to be sent to this server; what it shall be told as `traceparent`.
    pub fn attempt(&self, server: &str, at: Duration) -> HeaderValue {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        end_last(&mut attempts, at);
        let nth = attempts.len() as u64 + 1;
        let span = u64::from_be_bytes(self.context.span).wrapping_add(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // Zero is no span (W3C Trace Context, section 2.2.2.4).
        let span = span.max(1).to_be_bytes();
        if attempts.len() < MAX_ATTEMPTS {
            attempts.push(Attempt { span, server: server.to_owned(), began: at, failed: None });
        }
        self.context.traceparent(span)
    }

    /// There will be no answer to the last attempt.
    pub fn failed(&self, at: Duration) {
        end_last(&mut self.attempts.lock().unwrap_or_else(PoisonError::into_inner), at);
    }

    /// What was tried.
    pub fn attempts(&self) -> Vec<Attempt> {
        std::mem::take(&mut *self.attempts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn end_last(attempts: &mut [Attempt], at: Duration) {
    if let Some(last) = attempts.last_mut() {
        last.failed.get_or_insert(at);
    }
}

/// A request that is over, as it is told.
#[derive(Debug, Clone)]
pub struct RequestSpan {
    /// Where it stands.
    pub context: SpanContext,
    /// The request id: that of the log line.
    pub request_id: String,
    /// The method, if it is one that everybody knows.
    pub method: &'static str,
    /// The route's pattern, or what else answered.
    pub route: String,
    /// Whether the client came by TLS.
    pub https: bool,
    /// The upstream, when one was asked.
    pub upstream: Option<String>,
    /// Status sent; 499 when the client had gone.
    pub status: u16,
    /// Problem code, for refusals.
    pub code: Option<&'static str>,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// When it came, nanoseconds since the epoch.
    pub began: u64,
    /// How long it took.
    pub took: Duration,
    /// Whether the answer was sent to its end.
    pub complete: bool,
    /// What was tried.
    pub attempts: Vec<Attempt>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &[u8] = b"0123456789abcdef8000000000000000";
    const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_part_is_taken_by_the_second_half_of_the_id() {
        for (part, taken) in [(0., false), (0.49, false), (0.5, false), (0.51, true), (1., true)] {
            let context = Sampler::new(part).decide(OWN, None);
            assert_eq!(context.is_some(), taken, "{part}");
        }
        let context = Sampler::new(1.).decide(OWN, None).unwrap();
        assert_eq!(context.span, [0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(context.traceparent(context.span), "00-0123456789abcdef8000000000000000-8000000000000000-01");
        assert_eq!(Sampler::new(1.).decide(b"no id", None), None);
        assert!(Sampler::new(1.).decide(&[b'f'; 32], None).is_some());
    }

    #[test]
    fn whoever_began_the_trace_decides() {
        let context = Sampler::new(0.).decide(OWN, Some(PARENT)).unwrap();
        assert_eq!(context.parent, Some([0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]));
        assert_eq!(
            context.traceparent([0, 0, 0, 0, 0, 0, 0, 1]),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01"
        );
        let mut unsampled = PARENT.to_vec();
        unsampled[54] = b'0';
        assert_eq!(Sampler::new(1.).decide(OWN, Some(&unsampled)), None);
        // Another flag says nothing about this.
        unsampled[54] = b'2';
        assert_eq!(Sampler::new(1.).decide(OWN, Some(&unsampled)), None);
    }

    #[test]
    fn attempts_have_spans_of_their_own_and_all_but_the_last_failed() {
        let recording = Recording::new(Sampler::new(1.).decide(OWN, None).unwrap());
        let (first, second) = (Duration::from_millis(1), Duration::from_millis(5));
        let told = [recording.attempt("a:1", first), recording.attempt("b:2", second)];
        assert_ne!(told[0], told[1]);
        let attempts = recording.attempts();
        assert_eq!(
            attempts.iter().map(|a| (a.server.as_str(), a.failed)).collect::<Vec<_>>(),
            [("a:1", Some(second)), ("b:2", None)]
        );
        assert_eq!(recording.context.traceparent(attempts[1].span), told[1]);
        for n in 0..100 {
            recording.attempt("c:3", Duration::from_secs(n));
        }
        assert_eq!(recording.attempts().len(), MAX_ATTEMPTS);
    }
}
