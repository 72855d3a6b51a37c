//! What a layer that decides at once returns.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::Response;

pin_project! {
    /// The layer's own answer, or the inner service's future, without a box around it. The own answer is boxed: it is rare, and
    /// the future of every request would carry the room for it, once for each layer.
    #[derive(Debug)]
    pub struct Decided<F> {
        #[pin]
        inner: Option<F>,
        // Without an inner future; nothing once it was taken.
        answer: Option<Box<Response>>,
    }
}

impl<F> Decided<F> {
    /// The layer's own answer.
    pub fn answered(answer: Response) -> Self {
        Self { inner: None, answer: Some(Box::new(answer)) }
    }

    /// Passed on to the inner service, whose future this is.
    pub const fn passed(inner: F) -> Self {
        Self { inner: Some(inner), answer: None }
    }
}

impl<F> Future for Decided<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(inner) = this.inner.as_pin_mut() {
            return inner.poll(cx);
        }
        match this.answer.take() {
            Some(answer) => Poll::Ready(Ok(*answer)),
            // Polled after it was ready, which the contract of futures forbids.
            None => Poll::Pending,
        }
    }
}
