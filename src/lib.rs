//! **wxgate**: the gateway that a WeChat mini program puts in front of its services.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr))]

pub mod admin;
pub mod auth;
pub mod body;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
pub mod gateway;
pub mod ids;
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
pub mod wechat;
