//! **wxgate**: the gateway that a WeChat mini program puts in front of its services.
//!
//! A mini program talks only to the gateway. The gateway turns the code of `wx.login` into a session and tokens of its own,
//! checks the token of each request without asking a store, removes whatever identity a client claims, and forwards the
//! request with the true one in headers. This crate is the `wxgate` binary's inside; it promises no stable API.
//!
//! # Life of a request
//!
//! 1. [`server::listen`] accepts on a worker's own socket; [`server::worker`] is one thread, one runtime.
//! 2. The guard in [`server`] lets only heads and bodies through that can be read in one way.
//! 3. [`gateway::Worker::call`] takes the stack of the current [`gateway::Snapshot`].
//! 4. [`pipeline`]: trace → refused → client address → hygiene → route → cors → limit → authenticate → limit →
//!    authorize → identity → dispatch.
//! 5. [`proxy::Forwarder`] sends it over one of the worker's connections, and the answer goes back the same way.
//! 6. The log line and the counters are written when the last byte is out ([`pipeline::trace`]).
//!
//! # Life of a login
//!
//! 1. `POST /auth/login` is dispatched to the control runtime (`gateway/endpoints.rs`), so that WeChat can be slow.
//! 2. [`auth::login`]: one exchange per code, however many ask ([`auth::single_flight`]).
//! 3. [`wechat::code2session`]: code → openid, unionid, session_key.
//! 4. [`store::Members::sign_in`]: the member, registered at the first login.
//! 5. [`store::vault`] seals session_key; [`store::Sessions::open`] writes session, refresh token, code and key in one
//!    transaction.
//! 6. [`token::mint`] signs the access token; the refresh token is derived ([`token::refresh`]).
//!
//! # Modules
//!
//! | module | what it is |
//! | --- | --- |
//! | [`ids`], [`clock`], [`body`], [`credential`], [`keyfile`], `http1`, [`limiter`], [`metrics`], [`telemetry`], [`tunnel`], `waiting` | leaves, which everybody may import |
//! | [`config`] | `gateway.toml`: file → checked |
//! | [`token`], [`store`], [`wechat`], [`proxy`] | four trades that do not know each other |
//! | [`problem`] | the one HTTP error, and the table from their errors to it |
//! | [`auth`], [`pipeline`] | the endpoints; the layers |
//! | [`gateway`] | the composition root: configuration + what lives on → what answers |
//! | [`server`], [`admin`] | sockets and threads; the operators' listener |
//! | [`cli`] | one file a command |
//!
//! Who may import whom is a table in `docs/ARCHITECTURE.md`, and a test holds the source to it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr))]

pub mod acme;
pub mod admin;
pub mod auth;
pub mod body;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
pub mod gateway;
mod http1;
pub mod ids;
pub mod internal;
pub mod keyfile;
pub mod limiter;
pub mod metrics;
pub mod pipeline;
pub mod problem;
pub mod proxy;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod token;
pub mod tunnel;
mod waiting;
pub mod wechat;
