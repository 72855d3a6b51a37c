//! Answers that go on: event streams, and others without a stated length. What ends them, and what does not.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::DEADLINE;
use crate::support::gateway::{Gateway, Member};
use crate::support::http1::Broken;
use crate::support::raw::Client;

const EVENTS: &str = "Content-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
const CHUNKED: &str = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A service whose answers the test writes by hand.
struct Service(TcpListener);

impl Service {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    async fn gateway(&self, top: &str) -> Gateway {
        let address = self.0.local_addr().unwrap();
        Gateway::with(&format!(
            "{top}\n[[upstream]]\nname = \"news\"\nservers = [\"http://{address}\"]\n\
             [[route]]\npath = \"/news/*\"\nupstream = \"news\"\n\
             [[route]]\npath = \"/open/*\"\nupstream = \"news\"\nauth = \"none\"\n"
        ))
        .await
    }

    /// Takes the next request and begins to answer it.
    async fn answer(&self, begin: &str) -> TcpStream {
        let (mut tcp, _) = timeout(DEADLINE, self.0.accept()).await.expect("a request in time").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.unwrap());
        }
        tcp.write_all(format!("HTTP/1.1 200 OK\r\n{begin}").as_bytes()).await.unwrap();
        tcp
    }
}

/// A reader who has the head and the first piece.
struct Reading {
    client: Client,
    service: TcpStream,
}

impl Reading {
    async fn begin(gateway: &Gateway, service: &Service, path: &str, token: Option<&str>, begin: &str) -> Self {
        let mut client = Client::connect(gateway.address()).await;
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{token}\r\n")).await;
        let mut tcp = service.answer(begin).await;
        let mut read = Self {
            client,
            service: {
                tcp.write_all(b"9\r\ndata: 1\n\n\r\n").await.unwrap();
                tcp
            },
        };
        read.until(b"data: 1\n\n\r\n").await;
        read
    }

    /// Reads on until these bytes have come.
    async fn until(&mut self, wanted: &[u8]) {
        let mut got = Vec::new();
        while !got.ends_with(wanted) {
            got.extend(self.client.bytes(1).await.unwrap_or_else(|e| panic!("{e:?} after {}", got.escape_ascii())));
        }
    }

    /// The service says more, and the reader gets it.
    async fn goes_on(&mut self) {
        self.service.write_all(b"9\r\ndata: 2\n\n\r\n").await.unwrap();
        self.until(b"data: 2\n\n\r\n").await;
    }

    /// The stream ends as a whole answer does, and the connection can be used again; the service's is closed.
    async fn ends_properly(mut self) {
        assert_eq!(self.client.bytes(5).await.unwrap(), b"0\r\n\r\n");
        let mut rest = Vec::new();
        timeout(DEADLINE, self.service.read_to_end(&mut rest)).await.expect("closed").unwrap();
        self.client.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(matches!(self.client.response().await.unwrap().status, 200 | 503));
    }

    /// The answer breaks off: nothing in it looks like an end.
    async fn breaks_off(mut self) {
        assert_eq!(self.client.until_closed().await.unwrap().escape_ascii().to_string(), "");
    }
}

async fn log_out(gateway: &Gateway, member: &Member) {
    let logout = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(member.token()).send().await.unwrap();
    assert_eq!(logout.status(), 204);
}

#[tokio::test]
async fn logging_out_ends_the_event_streams_of_that_session_within_a_second() {
    let service = Service::start().await;
    let gateway = service.gateway("").await;
    let (phone, tablet) = (gateway.login("alice").await, gateway.login("alice").await);
    let ends = Reading::begin(&gateway, &service, "/news/a", Some(phone.token()), EVENTS).await;
    let mut stays = Reading::begin(&gateway, &service, "/news/b", Some(tablet.token()), EVENTS).await;
    gateway.until_metric_is("wxgate_open_streams{route=\"/news/*\"}", 2.).await;
    log_out(&gateway, &phone).await;
    timeout(Duration::from_secs(1), ends.ends_properly()).await.expect("within a second");
    stays.goes_on().await;
    let line = gateway.log.until_line(|line| line["path"] == "/news/a").await;
    assert_eq!((&line["ended"], &line["member"]), (&"token_revoked".into(), &phone.id().into()), "{line}");
    assert_eq!(gateway.metric("wxgate_streams_ended_total{ended=\"token_revoked\"}").await, 1.);
    gateway.until_metric_is("wxgate_open_streams{route=\"/news/*\"}", 1.).await;
}

#[tokio::test]
async fn another_answer_without_a_length_is_broken_off_so_that_nobody_takes_it_for_the_whole() {
    let service = Service::start().await;
    let gateway = service.gateway("").await;
    let alice = gateway.login("alice").await;
    let reading = Reading::begin(&gateway, &service, "/news/a", Some(alice.token()), CHUNKED).await;
    log_out(&gateway, &alice).await;
    reading.breaks_off().await;
    let line = gateway.log.until_line(|line| line["path"] == "/news/a").await;
    assert_eq!((&line["ended"], &line["complete"]), (&"token_revoked".into(), &false.into()), "{line}");
}

#[tokio::test]
async fn a_download_with_a_length_is_let_finish() {
    let service = Service::start().await;
    let gateway = service.gateway("").await;
    let alice = gateway.login("alice").await;
    let mut client = Client::connect(gateway.address()).await;
    client.send(format!("GET /news/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", alice.token())).await;
    let mut tcp = service.answer("Content-Length: 9\r\n\r\nfirst").await;
    let events = Reading::begin(&gateway, &service, "/news/b", Some(alice.token()), EVENTS).await;
    log_out(&gateway, &alice).await;
    events.ends_properly().await;
    tcp.write_all(b"last").await.unwrap();
    assert_eq!(client.response().await.unwrap().text(), "firstlast");
}

#[tokio::test]
async fn a_stream_ends_with_its_token_unless_its_session_was_refreshed() {
    let service = Service::start().await;
    let gateway = service.gateway("").await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let mut stays = Reading::begin(&gateway, &service, "/news/a", Some(alice.token()), EVENTS).await;
    let ends = Reading::begin(&gateway, &service, "/news/b", Some(bob.token()), EVENTS).await;
    let mut anonymous = Reading::begin(&gateway, &service, "/open/c", None, EVENTS).await;
    gateway.clock.advance(Duration::from_secs(3600));
    let refreshed = gateway.post("/auth/refresh", &serde_json::json!({ "refresh_token": alice.refresh() })).await;
    assert_eq!(refreshed.status, 200);
    gateway.clock.advance(Duration::from_secs(3600));
    // Both are looked at in one go, so whoever is to end with this one has ended.
    ends.ends_properly().await;
    gateway.until_metric_is("wxgate_streams_ended_total{ended=\"token_expired\"}", 1.).await;
    stays.goes_on().await;
    // The newer token ends too.
    gateway.clock.advance(Duration::from_secs(3600));
    stays.ends_properly().await;
    anonymous.goes_on().await;
}

#[tokio::test]
async fn a_reload_ends_only_the_streams_of_routes_that_go() {
    let service = Service::start().await;
    let gateway = service.gateway("").await;
    let alice = gateway.login("alice").await;
    let mut stays = Reading::begin(&gateway, &service, "/news/a", Some(alice.token()), EVENTS).await;
    let ends = Reading::begin(&gateway, &service, "/open/b", None, EVENTS).await;
    gateway.rewrite(|text| text.replace("path = \"/open/*\"", "path = \"/gone/*\"")).await;
    ends.ends_properly().await;
    stays.goes_on().await;
}

#[tokio::test]
async fn a_drain_ends_event_streams_and_lets_other_answers_finish() {
    let service = Service::start().await;
    let mut gateway = service.gateway("").await;
    let events = Reading::begin(&gateway, &service, "/open/a", None, EVENTS).await;
    let mut other = Reading::begin(&gateway, &service, "/open/b", None, CHUNKED).await;
    let finishing = tokio::spawn(async move {
        events.ends_properly().await;
        other.goes_on().await;
        other.service.write_all(b"0\r\n\r\n").await.unwrap();
        assert_eq!(other.client.bytes(5).await.unwrap(), b"0\r\n\r\n");
    });
    assert_eq!(gateway.stop().await, wxgate::server::drain::Drained::Complete);
    finishing.await.unwrap();
}

#[tokio::test]
async fn a_reader_who_goes_away_takes_the_services_connection_along() {
    let service = Service::start().await;
    let gateway = service.gateway("").await;
    let Reading { client, service: mut tcp } = Reading::begin(&gateway, &service, "/open/a", None, EVENTS).await;
    drop(client);
    let mut rest = Vec::new();
    timeout(DEADLINE, tcp.read_to_end(&mut rest)).await.expect("closed").unwrap();
    gateway.until_metric_is("wxgate_open_streams{route=\"/open/*\"}", 0.).await;
}

/// RFC 9110, section 10.1.1, as a real client does it: the body waits for the 100.
#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_before_it_sends() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    let head = "POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.response().await.unwrap().status, 100);
    client.send("hello").await;
    let answer = client.response().await.unwrap();
    assert_eq!((answer.status, &answer.json()["body"]), (200, &"hello".into()));
    // Who is refused anyway is not asked for the body.
    client.send(head.replace("/public/", "/api/")).await;
    assert_eq!(client.response().await.unwrap().status, 401);
}

/// The same with curl, which waits a second for the 100 and then sends all the same.
#[tokio::test]
async fn curl_uploads_with_expect_100_continue() {
    let gateway = Gateway::start().await;
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "--noproxy", "*", "--max-time", "20", "--expect100-timeout", "15"])
        .args(["-H", "Expect: 100-continue", "-w", " %{http_code}", "--data-binary", "hello"])
        .arg(gateway.url("/public/x"));
    let output = match tokio::task::spawn_blocking(move || curl.output()).await.unwrap() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return println!("skipped: there is no curl here");
        }
        Err(error) => panic!("{error}"),
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.ends_with(" 200") && said.contains("\"body\":\"hello\""), "{said}");
}

/// A FIN cannot be told from a client that went away, so it is taken as one: a stream nobody reads is not kept open.
#[tokio::test]
async fn a_client_that_closes_its_side_is_taken_as_gone() {
    let service = Service::start().await;
    let gateway = service.gateway("").await;
    let Reading { mut client, service: mut tcp } = Reading::begin(&gateway, &service, "/open/a", None, EVENTS).await;
    client.finish().await;
    let mut rest = Vec::new();
    timeout(DEADLINE, tcp.read_to_end(&mut rest)).await.expect("closed").unwrap();
    assert_eq!(client.until_closed().await.unwrap(), b"");
}

/// The service has said all it will say (a FIN), and its answer ends there if it says no length (RFC 9112, section 6.3).
#[tokio::test]
async fn a_service_that_closes_its_side_has_answered() {
    let service = Service::start().await;
    let gateway = service.gateway("").await;
    let mut client = Client::connect(gateway.address()).await;
    client.send("GET /open/a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut tcp = service.answer("Content-Type: text/plain\r\n\r\nall of it").await;
    tcp.shutdown().await.unwrap();
    assert_eq!(client.response().await.unwrap().text(), "all of it");
}

/// The service answers before it has the body, and closes: the client gets that answer.
#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_arrives() {
    let service = Service::start().await;
    let gateway = service.gateway("").await;
    let mut client = Client::connect(gateway.address()).await;
    client.send("POST /open/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome").await;
    let tcp = service.answer("Content-Length: 4\r\nConnection: close\r\n\r\nfull").await;
    let answer = client.response().await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "full"));
    drop(tcp);
    // What the client still sends belongs to nothing, and is not read as a request.
    client.send("GET /open/smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(matches!(client.response().await, Err(Broken::Closed | Broken::CutOff)));
}
