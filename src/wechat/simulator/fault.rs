//! Faults on request: the bad days of WeChat and of the network before it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future;
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Redirect, Response};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use super::answer::Answer;

/// Faults that may be planned at once.
const MAX_PLANNED: usize = 1000;

/// Piece of a huge body, bytes.
const PIECE: usize = 64 * 1024;

/// What goes wrong with one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// WeChat refuses with this errcode and does nothing.
    Errcode(i64),
    /// Another HTTP status with an HTML page, as a gateway in between gives it; nothing is done.
    Status(u16),
    /// This body instead of an answer, under HTTP 200; nothing is done.
    Body(Vec<u8>),
    /// A redirect to this place; nothing is done.
    Redirect(String),
    /// A body of so many spaces, sent as fast as it is taken; nothing is done.
    HugeBody(u64),
    /// The true answer with a header of so many bytes.
    HugeHeader(usize),
    /// The call is carried out, the answer comes this much later.
    Delay(Duration),
    /// The call is carried out, the answer comes one byte at a time, this far apart.
    Drip(Duration),
    /// The call is carried out, the answer breaks off in the middle.
    Cut,
    /// The call is carried out, no answer ever comes.
    Hang,
    /// The call is carried out, the connection is closed without an answer.
    Reset,
}

/// Response extension: close the connection instead of sending this.
#[derive(Debug, Clone, Copy)]
pub(super) struct CloseInstead;

impl Fault {
    /// The answer in place of the true one, for faults that keep the call from being carried out.
    pub(super) fn replace(&self) -> Option<Response> {
        match self {
            Self::Errcode(errcode) => Some(Answer(Err(*errcode)).into_response()),
            Self::Status(status) => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Some((status, "<html><body><h1>Bad Gateway</h1></body></html>").into_response())
            }
            Self::Body(body) => Some(Response::new(Body::from(body.clone()))),
            Self::Redirect(to) => Some(Redirect::temporary(to).into_response()),
            Self::HugeBody(bytes) => Some(Response::new(spaces(*bytes))),
            Self::HugeHeader(_) | Self::Delay(_) | Self::Drip(_) | Self::Cut | Self::Hang | Self::Reset => None,
        }
    }

    /// What becomes of the true answer, for faults that strike after the call was carried out.
    pub(super) async fn spoil(self, mut answer: Response) -> Response {
        match self {
            Self::HugeHeader(bytes) => {
                if let Ok(value) = HeaderValue::from_str(&"a".repeat(bytes)) {
                    answer.headers_mut().insert(HeaderName::from_static("x-padding"), value);
                }
            }
            Self::Delay(by) => tokio::time::sleep(by).await,
            Self::Drip(every) => return answer.map(|body| drip(body, every)),
            Self::Cut => return answer.map(cut),
            Self::Hang => future::pending().await,
            Self::Reset => {
                answer.extensions_mut().insert(CloseInstead);
            }
            Self::Errcode(_) | Self::Status(_) | Self::Body(_) | Self::Redirect(_) | Self::HugeBody(_) => {}
        }
        answer
    }
}

fn spaces(bytes: u64) -> Body {
    let pieces = stream::unfold(bytes, |left| async move {
        let piece = left.min(PIECE as u64);
        // `piece` is at most PIECE, so it fits.
        (left > 0).then(|| (Ok::<_, Infallible>(Bytes::from(vec![b' '; piece as usize])), left - piece))
    });
    Body::from_stream(pieces)
}

fn drip(body: Body, every: Duration) -> Body {
    let bytes = body.into_data_stream().flat_map(move |piece| {
        stream::iter(piece.unwrap_or_default()).then(move |byte| async move {
            tokio::time::sleep(every).await;
            Ok::<_, Infallible>(Bytes::copy_from_slice(&[byte]))
        })
    });
    Body::from_stream(bytes)
}

fn cut(body: Body) -> Body {
    let halves = body.into_data_stream().flat_map(|piece| {
        let piece = piece.unwrap_or_default();
        let half = piece.slice(..piece.len() / 2);
        stream::iter([Ok(half), Err(io::Error::from(io::ErrorKind::ConnectionReset))])
    });
    Body::from_stream(halves)
}

/// The faults to come, first planned, first met.
#[derive(Debug, Default)]
pub(super) struct Faults(VecDeque<Planned>);

#[derive(Debug)]
struct Planned {
    path: String,
    times: u32,
    fault: Fault,
}

impl Faults {
    /// Plans `fault` for the next `times` calls of `path`; `*` is any path. The oldest plan goes when there are too many.
    pub(super) fn plan(&mut self, path: &str, times: u32, fault: Fault) {
        if self.0.len() == MAX_PLANNED {
            self.0.pop_front();
        }
        self.0.push_back(Planned { path: path.to_owned(), times, fault });
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that this call of `path` meets.
    pub(super) fn take(&mut self, path: &str) -> Option<Fault> {
        self.0.retain(|planned| planned.times > 0);
        let planned = self.0.iter_mut().find(|planned| planned.path == path || planned.path == "*")?;
        planned.times -= 1;
        Some(planned.fault.clone())
    }
}
