//! A service that speaks HTTP/2, by TLS or with prior knowledge, over the library below hyper: it sees fields and trailers as
//! they came. The path says how it answers.
//!
//! | path | answer |
//! | --- | --- |
//! | `/grpc.Echo/Unary` | each message back when the body is over, then trailers |
//! | `/grpc.Echo/Stream` | each frame back at once, then trailers |
//! | `/grpc.Echo/Refuse` | a head alone, with `grpc-status` in it |
//! | `/reset` | half a body, and a reset |
//! | `/empty/N` | a head of this status alone, which speaks of 5 bytes |
//! | anything else | 200 and `path` |

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What it has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: usize,
    pub(crate) requests: Vec<Request<()>>,
    pub(crate) trailers: Vec<HeaderMap>,
}

/// The service; it ends when this goes.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

impl Service {
    /// With TLS, or with prior knowledge.
    pub(crate) async fn start(tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let mut tasks = JoinSet::new();
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let shared = Arc::clone(&seen);
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, seen).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, seen).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, seen, _tasks: tasks }
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.seen.lock().unwrap().requests.len()
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, seen: Arc<Mutex<Seen>>) {
    seen.lock().unwrap().connections += 1;
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        seen.lock().unwrap().requests.push(Request::from_parts(head, ()));
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let _ = answer(&path, body, respond, &seen).await;
        });
    }
}

async fn answer(
    path: &str,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    seen: &Mutex<Seen>,
) -> Result<(), h2::Error> {
    let grpc = || Response::builder().header("content-type", "application/grpc");
    let trailers = || {
        let mut trailers = HeaderMap::new();
        for (name, value) in [("grpc-status", "0"), ("grpc-message", "fine"), ("x-wxgate-member", "evil")] {
            trailers.insert(name, HeaderValue::from_static(value));
        }
        trailers
    };
    match path {
        "/grpc.Echo/Refuse" => {
            respond.send_response(grpc().header("grpc-status", "7").body(()).unwrap(), true)?;
        }
        "/reset" => {
            let mut sending = respond.send_response(Response::new(()), false)?;
            sending.send_data(Bytes::from("half"), false)?;
            tokio::task::yield_now().await;
            sending.send_reset(Reason::INTERNAL_ERROR);
        }
        "/grpc.Echo/Unary" | "/grpc.Echo/Stream" => {
            let at_once = path.ends_with("Stream");
            let mut sending =
                if at_once { Some(respond.send_response(grpc().body(()).unwrap(), false)?) } else { None };
            let mut held = Vec::new();
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                match &mut sending {
                    Some(sending) => sending.send_data(data, false)?,
                    None => held.extend_from_slice(&data),
                }
            }
            if let Some(trailers) = body.trailers().await? {
                seen.lock().unwrap().trailers.push(trailers);
            }
            let mut sending = match sending {
                Some(sending) => sending,
                None => respond.send_response(grpc().body(()).unwrap(), false)?,
            };
            if !held.is_empty() {
                sending.send_data(Bytes::from(held), false)?;
            }
            sending.send_trailers(trailers())?;
        }
        _ if path.starts_with("/empty/") => {
            let status = path.trim_start_matches("/empty/").parse::<u16>().unwrap();
            let answer = Response::builder().status(status).header("content-length", "5");
            respond.send_response(answer.body(()).unwrap(), true)?;
        }
        _ => {
            let answer = Response::builder().header("x-wxgate-session", "evil").body(()).unwrap();
            respond.send_response(answer, false)?.send_data(Bytes::from(path.to_owned()), true)?;
        }
    }
    Ok(())
}
