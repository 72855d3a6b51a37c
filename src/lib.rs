//! **wxgate**: the gateway that a WeChat mini program puts in front of its services.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr))]

pub mod body;
pub mod cli;
pub mod clock;
pub mod config;
pub mod ids;
pub mod keyfile;
pub mod problem;
pub mod store;
pub mod token;
pub mod wechat;
