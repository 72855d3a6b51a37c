//! Calls to WeChat's server API, and a server that behaves like it.
//!
//! [`client`] speaks HTTP to the configured base and [`answer`] reads what came back; [`errcode`] is WeChat's table of
//! errors and what each asks of us; [`circuit`] leaves a failing WeChat alone, and [`quota`] counts what it finds too much. [`code2session`] is the login call and needs
//! no access token; [`phone_number`], [`session_check`] and [`encrypt_key`] need the one that [`access_token`] holds. [`session_key`],
//! [`open_data`] and [`push`] are the crypto, pure; [`message`] reads what WeChat pushes. [`relay`] makes
//! the calls of services. [`web_login`] is OAuth2 for browsers.
//! [`simulator`] is a real HTTP server with WeChat's paths and quirks, the same for tests, `wxgate demo` and
//! `wxgate simulate`.

pub mod access_token;
pub mod answer;
pub mod circuit;
pub mod client;
pub mod code2session;
pub mod encrypt_key;
pub mod errcode;
pub mod message;
pub mod open_data;
pub mod phone_number;
pub mod push;
pub mod quota;
pub mod relay;
pub mod session_check;
pub mod session_key;
pub mod simulator;
pub mod web_login;

pub use access_token::AccessTokens;
pub use circuit::Circuits;
pub use client::Client;
pub use code2session::Code2Session;
pub use encrypt_key::EncryptKey;
pub use errcode::{Errcode, Meaning};
pub use phone_number::PhoneNumber;
pub use session_key::SessionKey;

use std::sync::Arc;
use std::time::Duration;

/// Why a call to WeChat gave nothing. No variant holds a URL, a code, a secret or a body. Cheap to clone: all who wait for
/// one call get the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// WeChat answered with an errcode.
    #[error("WeChat answered {0}")]
    Errcode(Errcode),
    /// No connection: refused, name not found, not established in time; or none can be made, because the base is no URL
    /// or the machine has no root certificates. Nothing was sent.
    #[error("no connection to WeChat")]
    Connect(#[source] Option<Arc<dyn std::error::Error + Send + Sync>>),
    /// The total deadline passed.
    #[error("WeChat did not answer in time")]
    Timeout,
    /// Failed TLS handshake or certificate, broken connection, status other than 2xx, redirect.
    #[error("the exchange with WeChat failed: {0}")]
    Transport(&'static str),
    /// An answer that cannot be used: too large, not JSON, a field missing or malformed.
    #[error("WeChat gave an unusable answer: {0}")]
    Answer(&'static str),
    /// The call was not made: WeChat has failed again and again, and is left alone for a moment.
    #[error("WeChat has failed repeatedly: no call was made")]
    CircuitOpen {
        /// When to ask again.
        retry_after: Duration,
    },
}

impl Error {
    /// What WeChat's errcode asks of us, when it gave one.
    pub fn meaning(&self) -> Option<Meaning> {
        match self {
            Self::Errcode(errcode) => Some(errcode.meaning),
            Self::Connect(_) | Self::Timeout | Self::Transport(_) | Self::Answer(_) | Self::CircuitOpen { .. } => None,
        }
    }
}
