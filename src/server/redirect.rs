//! The plain listener beside TLS: tells clients to come by https, and answers authorities that ask whether a name is ours.
//!
//! One request a connection, and no body is read. The guard stands in front here, too.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::gateway::{ACME_WELL_KNOWN, Connection, ConnectionLimits, Worker};

use super::connection::Open;
use super::crew::Seat;
use super::drain::Watch;
use super::guard::{Guard, Limits};

/// Serves one connection: one answer, and its end. A connection on which nothing is asked ends with the drain.
pub(super) async fn serve(stream: TcpStream, (peer, _seat): (SocketAddr, Seat), worker: Arc<Worker>, mut drain: Watch) {
    let _open = Open::new(&worker);
    let connection = Arc::new(Connection::new(peer, false));
    let ConnectionLimits { max_head, max_uri, head_timeout, keep_alive, .. } = worker.connection_limits();
    let limits = Limits { max_head, max_uri, head_timeout, keep_alive };
    let guard = Guard::new(stream, limits, Arc::clone(&connection));
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&request, &worker);
        connection.answered();
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let mut http = http1::Builder::new();
    http.max_buf_size((max_head + 8 * 1024).max(64 * 1024)).keep_alive(false);
    let serving = http.serve_connection(TokioIo::new(guard), service);
    tokio::select! {
        biased;
        _ = serving => {}
        () = super::connection::quiet(&connection, &mut drain) => {}
    }
}

fn answer(request: &Request<Incoming>, worker: &Worker) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    // What the guard refused.
    if !matches!(request.uri().scheme_str(), None | Some("http" | "https")) {
        return status(StatusCode::BAD_REQUEST);
    }
    if let Some(token) = path.strip_prefix(ACME_WELL_KNOWN) {
        let Some(content) = worker.acme_file(token) else { return status(StatusCode::NOT_FOUND) };
        let mut response = Response::new(Full::from(content));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        return response;
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    // A host that is none of ours is not sent anywhere: it would make of us a page that leads to any other.
    let Some(authority) = host.and_then(|host| worker.https_authority(host)) else {
        return status(StatusCode::NOT_FOUND);
    };
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    match HeaderValue::try_from(format!("https://{authority}{target}")) {
        Ok(location) => {
            // Method and body stay what they are (RFC 9110, section 15.4.9).
            let mut response = status(StatusCode::PERMANENT_REDIRECT);
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Err(_) => status(StatusCode::BAD_REQUEST),
    }
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
