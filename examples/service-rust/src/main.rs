//! A service behind wxgate: it reads headers, and knows nothing of tokens, codes or WeChat.
//!
//! It must be reachable through the gateway only; so it listens on the loopback interface.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Who calls. Only the gateway can write this header: whatever a client sends under this name is removed.
struct Caller(String);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = (StatusCode, Json<Value>);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let openid = parts.headers.get("x-wx-openid").and_then(|value| value.to_str().ok());
        openid
            .map(|openid| Self(openid.to_owned()))
            .ok_or_else(|| (StatusCode::UNAUTHORIZED, Json(json!({"error": "no caller"}))))
    }
}

#[derive(Clone, Serialize)]
struct Order {
    item: String,
    /// Seconds since 1970.
    at: u64,
}

#[derive(Deserialize)]
struct NewOrder {
    item: String,
}

/// By openid.
type Orders = Arc<Mutex<HashMap<String, Vec<Order>>>>;

async fn list(State(orders): State<Orders>, Caller(openid): Caller) -> Json<Value> {
    let orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
    Json(json!({"orders": orders.get(&openid).cloned().unwrap_or_default()}))
}

async fn place(
    State(orders): State<Orders>,
    Caller(openid): Caller,
    Json(new): Json<NewOrder>,
) -> Result<(StatusCode, Json<Order>), StatusCode> {
    if new.item.is_empty() {
        return Err(StatusCode::BAD_REQUEST);
    }
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?.as_secs();
    let order = Order { item: new.item, at };
    orders.lock().unwrap_or_else(PoisonError::into_inner).entry(openid).or_default().push(order.clone());
    Ok((StatusCode::CREATED, Json(order)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::var("PORT").map_or(Ok(3001), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("orders on http://{}", listener.local_addr()?);
    let app = Router::new().route("/orders", get(list).post(place)).with_state(Orders::default());
    axum::serve(listener, app).await?;
    Ok(())
}
