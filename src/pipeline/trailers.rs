//! Trailers of clients on their way to an upstream that takes them: what may not stand in a head may not stand there.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::{self, Body};

use super::hygiene;

/// Fields that say how a message is framed, routed or authorised have no meaning behind it (RFC 9110, section 6.5.1).
const NEVER: [http::HeaderName; 6] = [AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST];

/// A body whose trailers are cleaned as a head is.
#[derive(Debug)]
pub struct Cleaned(Body);

/// `body` with clean trailers.
pub fn cleaned(body: Body) -> Body {
    if body.is_end_stream() { body } else { Body::boxed(Cleaned(body)) }
}

impl HttpBody for Cleaned {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        let mut frame = ready!(Pin::new(&mut self.get_mut().0).poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            hygiene::clean(trailers);
            for name in NEVER {
                trailers.remove(name);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    #[tokio::test]
    async fn identity_and_framing_cannot_be_said_behind_a_body() {
        let mut trailers = HeaderMap::new();
        for name in [
            "x-wx-openid",
            "x_wx_openid",
            "x-wxgate-member",
            "connection",
            "x-named",
            "authorization",
            "content-length",
        ] {
            trailers.insert(http::HeaderName::from_static(name), "x-named".parse().unwrap());
        }
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [Frame::data(Bytes::from("body")), Frame::trailers(trailers)];
        let frames = frames.map(Ok::<_, std::convert::Infallible>);
        let body = cleaned(Body::boxed(StreamBody::new(futures_util::stream::iter(frames))));
        let collected = body.collect().await.unwrap();
        let left: Vec<&str> = collected.trailers().unwrap().keys().map(http::HeaderName::as_str).collect();
        assert_eq!(left, ["grpc-status"]);
        assert_eq!(collected.to_bytes(), "body");
    }
}
