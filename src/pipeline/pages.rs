//! Problems as pages, for browsers: `[[error_page]]`.
//!
//! Only refusals of the gateway itself, and only for clients that ask for `text/html` before JSON; everybody else gets the
//! problem document. Status and headers stay as they are. What is put into a page is a number, a title of ours and the
//! request id, escaped: nothing of the request.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::Either;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, VARY};
use http::{HeaderMap, HeaderValue};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::body::Body;
use crate::config::{ErrorPage, PagePart};
use crate::problem::Refused;

use super::{Exchange, Request, Response};

/// The pages of a configuration.
#[derive(Debug, Clone, Default)]
pub struct PagesLayer {
    pages: Option<Arc<[ErrorPage]>>,
}

impl PagesLayer {
    /// These; without any, nothing is done.
    pub fn new(pages: &[ErrorPage]) -> Self {
        Self { pages: (!pages.is_empty()).then(|| pages.into()) }
    }
}

impl<S> Layer<S> for PagesLayer {
    type Service = Pages<S>;

    fn layer(&self, inner: S) -> Pages<S> {
        Pages { inner, pages: self.pages.clone() }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct Pages<S> {
    inner: S,
    pages: Option<Arc<[ErrorPage]>>,
}

impl<S> Service<Request> for Pages<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, PagesFuture<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let Some(pages) = &self.pages else { return Either::Left(self.inner.call(request)) };
        request.gather();
        let asked = match prefers_html(request.headers()) {
            true => Some(Arc::clone(&request.exchange)),
            false => None,
        };
        let pages = Arc::clone(pages);
        Either::Right(PagesFuture { inner: self.inner.call(request), asked, pages })
    }
}

/// Whether `Accept` names HTML, and no JSON that it likes as much (RFC 9110, section 12.5.1).
fn prefers_html(headers: &HeaderMap) -> bool {
    let (mut html, mut json) = (0.0, 0.0);
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let weight: f32 = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
        match media.as_str() {
            "text/html" => html = weight,
            "application/problem+json" | "application/json" => json = weight.max(json),
            _ => {}
        }
    }
    html > json
}

pin_project! {
    /// The inner answer, as a page where it is a refusal.
    #[derive(Debug)]
    pub struct PagesFuture<F> {
        #[pin]
        inner: F,
        asked: Option<Arc<Exchange>>,
        pages: Arc<[ErrorPage]>,
    }
}

impl<F> Future for PagesFuture<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.inner.poll(cx));
        let title = response.extensions().get::<Refused>().map(|refused| refused.code.title());
        let Some(title) = title else { return Poll::Ready(Ok(response)) };
        let status = response.status().as_u16();
        if let Some(page) = page(this.pages, status) {
            response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
            if let Some(exchange) = this.asked.take() {
                let html = render(page, status, title, exchange.id());
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
                headers.insert(NOSNIFF.0, NOSNIFF.1);
                *response.body_mut() = Body::from(html);
            }
        }
        Poll::Ready(Ok(response))
    }
}

const NOSNIFF: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));

/// The page of this status, else the one that is for all others.
fn page(pages: &[ErrorPage], status: u16) -> Option<&ErrorPage> {
    let own = pages.iter().find(|page| page.status.contains(&status));
    own.or_else(|| pages.iter().find(|page| page.status.is_empty()))
}

fn render(page: &ErrorPage, status: u16, title: &str, request_id: &str) -> String {
    let mut html = String::new();
    for part in &page.parts {
        match part {
            PagePart::Text(text) => html.push_str(text),
            PagePart::Status => escape(&mut html, &status.to_string()),
            PagePart::Title => escape(&mut html, title),
            PagePart::RequestId => escape(&mut html, request_id),
        }
    }
    html
}

/// For text and for quoted attributes.
fn escape(html: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_for_those_who_ask_for_html_first() {
        let chrome = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8";
        for (accept, html) in [
            (chrome, true),
            ("text/html", true),
            ("Text/HTML;q=0.5", true),
            ("text/html, application/json", false),
            ("application/json, text/html;q=0.9", false),
            ("text/html;q=0.9, application/problem+json;q=0.1", true),
            ("text/html;q=0", false),
            ("text/html;q=x", false),
            ("*/*", false),
            ("application/json", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(prefers_html(&headers), html, "{accept}");
        }
        assert!(!prefers_html(&HeaderMap::new()));
    }

    #[test]
    fn what_is_put_in_is_escaped() {
        let parts = vec![PagePart::Status, PagePart::Text("<b>".to_owned()), PagePart::Title, PagePart::RequestId];
        let page = ErrorPage { status: Vec::new(), parts };
        assert_eq!(render(&page, 404, "a & b", "\"'<x>"), "404<b>a &amp; b&quot;&#39;&lt;x&gt;");
    }
}
