//! Several workers: who gets which connection.

use futures_util::future::join_all;

use crate::support::gateway::{Gateway, ROUTES};
use crate::support::raw::Client;

async fn asked(gateway: &Gateway) -> Client {
    let mut client = Client::connect(gateway.address()).await;
    client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.unwrap().status, 200);
    client
}

/// Left to the kernel, every other pair would stand at one worker.
#[tokio::test]
async fn few_connections_are_spread_evenly_over_the_workers() {
    let gateway = Gateway::with(&format!("server.workers = 2\n{ROUTES}")).await;
    for connections in [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 4, 8, 20] {
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(asked(&gateway).await);
        }
        gateway.until_metric_is("wxgate_connections", f64::from(connections)).await;
        assert_eq!(gateway.metric("wxgate_worker_connections_max").await, f64::from(connections / 2));
        // They stay where they are, and serve.
        for client in &mut clients {
            client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.response().await.unwrap().status, 200);
        }
        drop(clients);
        gateway.until_metric_is("wxgate_connections", 0.0).await;
    }
}

#[tokio::test]
async fn many_at_once_are_all_served_and_those_that_were_passed_on_end_with_the_drain() {
    let mut gateway = Gateway::with(&format!("server.workers = 3\n{ROUTES}")).await;
    let mut clients = join_all((0..300).map(|_| asked(&gateway))).await;
    gateway.until_metric_is("wxgate_connections", 300.0).await;
    for client in &mut clients {
        client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    }
    for client in &mut clients {
        assert_eq!(client.response().await.unwrap().status, 200);
    }
    gateway.stop().await;
    for client in &mut clients {
        assert_eq!(client.until_closed().await.unwrap(), b"");
    }
}
