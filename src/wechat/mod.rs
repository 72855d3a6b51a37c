//! Calls to WeChat's server API, and a server that behaves like it.
//!
//! [`client`] speaks HTTP to the configured base; [`code2session`] is the login call; [`errcode`] is WeChat's table of
//! errors and what each asks of us. [`simulator`] is a real HTTP server with WeChat's paths and quirks, the same for tests,
//! `wxgate demo` and `wxgate simulate`.

pub mod client;
pub mod code2session;
pub mod errcode;
pub mod simulator;

pub use client::Client;
pub use errcode::{Errcode, Meaning};

/// Why a call to WeChat gave nothing. No variant holds a URL, a code, a secret or a body.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// WeChat answered with an errcode.
    #[error("WeChat answered errcode {}", .0.code)]
    Errcode(Errcode),
    /// No connection: refused, name not found, TLS failed.
    #[error("no connection to WeChat")]
    Connect(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The total deadline passed.
    #[error("WeChat did not answer in time")]
    Timeout,
    /// Broken connection, status other than 2xx, redirect.
    #[error("the exchange with WeChat failed: {0}")]
    Transport(&'static str),
    /// An answer that cannot be used: too large, not JSON, a field missing or malformed.
    #[error("WeChat gave an unusable answer: {0}")]
    Answer(&'static str),
}
