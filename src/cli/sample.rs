//! The sample service of `wxgate demo`: what a service behind the gateway looks like. It reads headers and nothing else.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::Request;
use http::HeaderMap;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The running service; ends when dropped.
#[derive(Debug)]
pub struct Sample {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Sample {
    /// On a free port of the loopback interface.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let service = Router::new().fallback(answer);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, service).await {
                tracing::error!(%error, "the sample service has ended");
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Greets the caller by what the gateway says of him.
async fn answer(request: Request) -> axum::Json<serde_json::Value> {
    let headers = request.headers();
    let said = |name: &str| text(headers, name);
    axum::Json(json!({
        "message": match said("x-wx-openid") {
            Some(openid) => format!("hello, {openid}"),
            None => "hello, whoever you are".to_owned(),
        },
        "path": request.uri().path(),
        "openid": said("x-wx-openid"),
        "appid": said("x-wx-appid"),
        "unionid": said("x-wx-unionid"),
        "member": said("x-wxgate-member"),
        "session": said("x-wxgate-session"),
        "authorization": said("authorization"),
    }))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
