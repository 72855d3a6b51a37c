//! HTTP/1.1 with one client, behind the guard: a request, its answer, the next request.
//!
//! One task does it all. While an answer is made it feeds the request body to whoever reads it, and notices a client that
//! goes away; an answer goes out with as much of its body as is there, in one write. Between two requests nothing is held
//! but the stream: no buffer, no parser, no timer of its own (the guard keeps time).

mod answer;
mod request;
#[cfg(test)]
mod tests;
mod upload;

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, StatusCode, response};
use http_body::Body as HttpBody;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::{self, Body};
use crate::http1::outgoing::{Outgoing, WrongLength};
use crate::http1::verbatim::Verbatim;

use super::guard::{Busy, Guard};
use super::head::Parts;

use self::answer::Asked;
use self::request::Head;
use self::upload::{Fed, Feed};

/// How much is read at once where it is not known what comes, bytes.
const READ: usize = 8 * 1024;

/// How a connection leaves this.
#[derive(Debug)]
pub(super) enum End {
    /// It is to be closed, gently.
    Close,
    /// There is nobody to close it for.
    Gone,
    /// The last answer was a 101: what the client sent behind its request.
    Switched(Bytes),
}

/// What requests are read from.
pub(super) trait Source: AsyncRead + AsyncWrite + Unpin {
    /// Reads into `buf`, which is empty. If what it gets begins with a head whose parts are known, they are put into `parts`; the
    /// head may be longer than what `buf` had room for.
    fn poll_read_parts(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        parts: &mut Parts,
    ) -> Poll<io::Result<()>>;
}

impl<S: AsyncRead + AsyncWrite + Unpin, B: Busy + Unpin> Source for Guard<S, B> {
    fn poll_read_parts(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        parts: &mut Parts,
    ) -> Poll<io::Result<()>> {
        Self::poll_read_parts(self, cx, buf, parts)
    }
}

/// What the answers come from.
pub(super) trait Service {
    /// Of an answer.
    type Body: HttpBody<Data = Bytes, Error = body::Error> + Unpin;

    /// Answers. The lines are those that are not among the headers.
    fn call(&self, request: Box<Request<Body>>, lines: Verbatim) -> impl Future<Output = Response<Self::Body>>;

    /// The value of `Date`.
    fn date(&self) -> [u8; 29];
}

/// Serves requests, one after the other, until the connection ends, an answer closes it, or `idle_enough` is ready while
/// nothing is under way.
pub(super) async fn serve<S, V>(stream: &mut S, service: &V, mut idle_enough: Pin<&mut impl Future<Output = ()>>) -> End
where
    S: Source,
    V: Service,
{
    let mut session = Session { stream, ahead: Bytes::new(), feed: None, broken: false };
    loop {
        let mut head = match poll_fn(|cx| session.poll_head(cx, idle_enough.as_mut())).await {
            Ok(head) => head,
            Err(end) => return end,
        };
        let asked = Asked::new(&head.request, head.keep_alive);
        let lines = std::mem::take(&mut head.verbatim);
        let request = session.begin(head);
        let response = {
            let mut answer = pin!(service.call(request, lines));
            match poll_fn(|cx| session.poll_answered(cx, answer.as_mut())).await {
                Some(response) => response,
                None => return End::Gone,
            }
        };
        if let Some(end) = session.answer(asked, response, service).await {
            return end;
        }
    }
}

struct Session<'a, S> {
    stream: &'a mut S,
    /// Read, and not used yet.
    ahead: Bytes,
    /// The request body, as long as it is not whole.
    feed: Option<Feed>,
    /// The client's side has ended within a body.
    broken: bool,
}

impl<S: Source> Session<'_, S> {
    /// The next request.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        idle_enough: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Result<Head, End>> {
        let mut parts = Parts::default();
        loop {
            if !self.ahead.is_empty() {
                let Ok(read) = request::read(&self.ahead, &mut parts) else { return Poll::Ready(Err(End::Close)) };
                if let Some((head, len)) = read {
                    let behind = self.ahead.split_off(len);
                    self.ahead = behind;
                    return Poll::Ready(Ok(head));
                }
            }
            match self.poll_read(cx, &mut parts) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(Err(End::Close)),
                Poll::Pending => return idle_enough.poll(cx).map(|()| Err(End::Close)),
            }
        }
    }

    /// The request of this head, with its body.
    fn begin(&mut self, mut head: Head) -> Box<Request<Body>> {
        let (body, feed) = upload::body(head.framing, std::mem::take(&mut self.ahead), head.expects);
        match feed {
            Ok(feed) => self.feed = Some(feed),
            Err(behind) => self.ahead = behind,
        }
        *head.request.body_mut() = body;
        head.request
    }

    /// The answer; `None` when the client goes away before there is one.
    fn poll_answered<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut answer: Pin<&mut impl Future<Output = T>>,
    ) -> Poll<Option<T>> {
        loop {
            if let Poll::Ready(response) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            if !ready!(self.poll_input(cx)) {
                return Poll::Ready(None);
            }
        }
    }

    /// Reads what may be read while an answer is under way. Ready when somebody has something to read now, or with false
    /// when the client is gone.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Some(feed) = &mut self.feed {
            match ready!(feed.poll(cx, self.stream)) {
                Fed::Piece => {}
                Fed::Whole => self.ahead = self.feed.take().map_or_else(Bytes::new, Feed::into_rest),
                Fed::Broken => (self.feed, self.broken) = (None, true),
            }
            return Poll::Ready(true);
        }
        // With a next request at hand it is not looked whether the client goes on: an end there may be the guard's.
        if !self.broken && self.ahead.is_empty() && !ready!(self.poll_read(cx, &mut Parts::default())) {
            return Poll::Ready(false);
        }
        Poll::Pending
    }

    /// Reads on into `ahead`; false when the client is gone. The parts of a head with which `ahead` begins then are put into
    /// `parts`, if they are known.
    fn poll_read(&mut self, cx: &mut Context<'_>, parts: &mut Parts) -> Poll<bool> {
        let mut room = [MaybeUninit::uninit(); READ];
        let mut room = ReadBuf::uninit(&mut room);
        let read = ready!(self.stream.poll_read_parts(cx, &mut room, parts));
        let read = if read.is_ok() { room.filled() } else { b"" };
        if !self.ahead.is_empty() || parts.len > read.len() {
            parts.clear();
        }
        self.ahead = match self.ahead.is_empty() {
            true => Bytes::copy_from_slice(read),
            false => Bytes::from([&self.ahead[..], read].concat()),
        };
        Poll::Ready(!read.is_empty())
    }

    /// Sends an answer; the end, if it is the last one.
    async fn answer<B, V>(&mut self, mut asked: Asked, response: Response<B>, service: &V) -> Option<End>
    where
        B: HttpBody<Data = Bytes, Error = body::Error> + Unpin,
        V: Service,
    {
        let begun = self.feed.as_mut().map_or(&b""[..], Feed::answer_begins);
        let (head, mut body) = response.into_parts();
        let exact = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        let (mut bytes, length) = asked.write(&head, exact, &service.date());
        if !begun.is_empty() {
            bytes.splice(..0, begun.iter().copied());
        }
        let mut sending = Sending { outgoing: Outgoing::new(bytes, length), body: &mut body, failed: false };
        let whole = poll_fn(|cx| self.poll_send(cx, &mut sending)).await;
        // Whoever counts and logs the answer does so when its last byte is out.
        drop(body);
        self.after(&head, whole, asked.keep_alive).await
    }

    /// What follows an answer.
    async fn after(&mut self, head: &response::Parts, whole: Option<bool>, keep_alive: bool) -> Option<End> {
        match whole {
            None => return Some(End::Gone),
            Some(false) => return Some(End::Close),
            Some(true) => {}
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Some(End::Switched(std::mem::take(&mut self.ahead)));
        }
        if let Some(feed) = self.feed.take() {
            let mut feed = Some(feed);
            let mut skip = |cx: &mut Context<'_>| feed.take().and_then(|feed| feed.skip(cx, self.stream));
            match poll_fn(|cx| Poll::Ready(skip(cx))).await {
                Some(behind) => self.ahead = behind,
                None => return Some(End::Close),
            }
        }
        (!keep_alive || self.broken).then_some(End::Close)
    }

    /// Sends head and body. True when they are out, false when the body broke off, `None` when the client is gone.
    fn poll_send<B>(&mut self, cx: &mut Context<'_>, sending: &mut Sending<'_, B>) -> Poll<Option<bool>>
    where
        B: HttpBody<Data = Bytes, Error = body::Error> + Unpin,
    {
        loop {
            let starved = sending.fill(cx);
            match sending.outgoing.poll_write(cx, self.stream) {
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(())) if sending.failed || sending.outgoing.is_over() => {
                    let flushed = ready!(Pin::new(&mut *self.stream).poll_flush(cx));
                    return Poll::Ready(flushed.ok().map(|()| !sending.failed));
                }
                Poll::Ready(Ok(())) if !starved => continue,
                Poll::Ready(Ok(())) => {
                    if let Poll::Ready(Err(_)) = Pin::new(&mut *self.stream).poll_flush(cx) {
                        return Poll::Ready(None);
                    }
                }
                Poll::Pending => {}
            }
            if !ready!(self.poll_input(cx)) {
                return Poll::Ready(None);
            }
        }
    }
}

/// An answer on its way out.
struct Sending<'a, B> {
    outgoing: Outgoing,
    body: &'a mut B,
    /// The body broke off, or is not as long as it was said to be. What came of it is written, then the connection ends.
    failed: bool,
}

impl<B: HttpBody<Data = Bytes, Error = body::Error> + Unpin> Sending<'_, B> {
    /// Takes what there is of the body, if it is wanted; whether there was nothing where something is.
    fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        while self.outgoing.wants_frame() && !self.failed {
            let put = match Pin::new(&mut *self.body).poll_frame(cx) {
                Poll::Pending => return true,
                Poll::Ready(Some(Ok(frame))) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.outgoing.put(data, self.body.is_end_stream())
                }
                Poll::Ready(None) => self.outgoing.put(Bytes::new(), true),
                Poll::Ready(Some(Err(_))) => Err(WrongLength),
            };
            self.failed = put.is_err();
        }
        false
    }
}
