//! Calls to WeChat's server API, and a server that behaves like it.
//!
//! [`client`] speaks HTTP to the configured base and [`answer`] reads what came back; [`code2session`] is the login call;
//! [`errcode`] is WeChat's table of errors and what each asks of us. [`session_key`], [`open_data`] and [`push`] are the crypto, pure;
//! [`message`] reads what WeChat pushes.
//! [`simulator`] is a real HTTP server with WeChat's paths and quirks, the same for tests, `wxgate demo` and
//! `wxgate simulate`.

pub mod answer;
pub mod client;
pub mod code2session;
pub mod errcode;
pub mod message;
pub mod open_data;
pub mod push;
pub mod session_key;
pub mod simulator;

pub use client::Client;
pub use code2session::Code2Session;
pub use errcode::{Errcode, Meaning};
pub use session_key::SessionKey;

/// Why a call to WeChat gave nothing. No variant holds a URL, a code, a secret or a body.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// WeChat answered with an errcode.
    #[error("WeChat answered {0}")]
    Errcode(Errcode),
    /// No connection: refused, name not found, not established in time; or none can be made, because the base is no URL
    /// or the machine has no root certificates. Nothing was sent.
    #[error("no connection to WeChat")]
    Connect(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The total deadline passed.
    #[error("WeChat did not answer in time")]
    Timeout,
    /// Failed TLS handshake or certificate, broken connection, status other than 2xx, redirect.
    #[error("the exchange with WeChat failed: {0}")]
    Transport(&'static str),
    /// An answer that cannot be used: too large, not JSON, a field missing or malformed.
    #[error("WeChat gave an unusable answer: {0}")]
    Answer(&'static str),
}
