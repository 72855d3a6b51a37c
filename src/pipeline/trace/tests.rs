use super::*;

#[test]
fn request_ids_are_unique_hex_and_never_zero() {
    let ids = RequestIds::new();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..10_000 {
        let id = ids.next();
        let text = String::from_utf8(id.to_vec()).unwrap();
        assert!(text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        assert!(seen.insert(text));
    }
}

#[test]
fn digits_are_those_of_the_standard_library() {
    for n in [0, 1, 9, 10, 15, 16, 0x0123_4567_89ab_cdef, u64::MAX, u64::MAX - 0x0f0f, 0x9a9a_9a9a_a9a9_a9a9] {
        assert_eq!(std::str::from_utf8(&hex(n)).unwrap(), format!("{n:016x}"));
    }
}

/// Panics where the path says so.
#[derive(Debug, Clone)]
struct Panicking;

impl Service<Request> for Panicking {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let path = request.uri().path().to_owned();
        assert_ne!(path, "/at-once", "a bug");
        Box::pin(async move {
            tokio::task::yield_now().await;
            assert_ne!(path, "/later", "a bug");
            Ok(http::Response::new(match path.as_str() {
                "/body" => Body::boxed(Broken),
                _ => Body::from("fine"),
            }))
        })
    }
}

#[derive(Debug)]
struct Broken;

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("a bug")
    }
}

fn observer(metrics: &Arc<Metrics>) -> Arc<Observer> {
    use crate::clock::Clock;
    use crate::telemetry::{Format, LogWriter};

    let shard = metrics.shard();
    let log = LogWriter::to(Format::Json, Box::new(std::io::sink()));
    Arc::new(Observer {
        metrics: Arc::clone(metrics),
        log: AccessLog::new(log, Clock::system(), Arc::clone(&shard)),
        shard,
        ids: RequestIds::new(),
        streams: super::super::streams::Streams::new(Arc::default()).list(),
        spans: ArcSwapOption::empty(),
    })
}

/// Keeps when the request came and when it went on.
#[derive(Debug, Clone, Default)]
struct Times(Arc<std::sync::OnceLock<(Instant, Instant)>>);

impl Service<Request> for Times {
    type Response = Response;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let _ = self.0.set((request.exchange.started, request.exchange.went_on()));
        std::future::ready(Ok(http::Response::new(Body::empty())))
    }
}

/// What an upstream is judged by begins when it could be asked, not when the client had to wait for us.
#[tokio::test]
async fn a_wait_at_the_turnstile_is_in_the_log_and_on_no_upstreams_account() {
    let waited = Duration::from_secs(10);
    let (times, connection) = (Times::default(), Arc::new(Connection::new("127.0.0.1:1".parse().unwrap(), false)));
    let mut trace = TraceLayer::new(observer(&Arc::default()), None).layer(times.clone());
    let request = Box::new(http::Request::new(Body::empty()));
    let passage = Passage { waited, overdue: false };
    let _ = trace.call(Inbound { request, lines: Verbatim::default(), connection, passage }).await;
    let (started, went_on) = *times.0.get().unwrap();
    assert_eq!(went_on - started, waited);
}

/// What a client gets for these requests on one connection, and how many panics were counted.
async fn served(requests: &str) -> (String, u64) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let metrics = Arc::new(Metrics::default());
    let trace = TraceLayer::new(observer(&metrics), None).layer(Panicking);
    let connection = Arc::new(Connection::new("127.0.0.1:1".parse().unwrap(), false));
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let request = Box::new(request.map(Body::from));
        trace.clone().call(Inbound {
            request,
            lines: Verbatim::default(),
            connection: Arc::clone(&connection),
            passage: Passage::default(),
        })
    });
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let server = hyper_util::rt::TokioIo::new(server);
    let mut http = hyper::server::conn::http1::Builder::new();
    let serving = http.half_close(true).serve_connection(server, service);
    let serving = tokio::spawn(async move { drop(serving.await) });
    client.write_all(requests.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    serving.await.expect("the connection's task lives");
    (answer, metrics.panics.get())
}

#[tokio::test]
async fn a_panic_is_one_500_and_the_connection_lives_on() {
    for path in ["/at-once", "/later"] {
        let (answer, panics) = served(&format!("GET {path} HTTP/1.1\r\n\r\nGET /fine HTTP/1.1\r\n\r\n")).await;
        assert_eq!(answer.matches("HTTP/1.1 500 ").count(), 1, "{path}: {answer}");
        assert!(answer.contains("\"code\":\"internal\"") && !answer.contains("bug"), "{path}: {answer}");
        assert!(answer.contains("HTTP/1.1 200 OK") && answer.ends_with("fine"), "{path}: {answer}");
        assert_eq!(panics, 1, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_panics_breaks_its_answer_off() {
    let (answer, panics) = served("GET /body HTTP/1.1\r\n\r\n").await;
    assert!(!answer.contains("\r\n0\r\n\r\n"), "not a whole answer: {answer}");
    assert_eq!(panics, 1);
}
