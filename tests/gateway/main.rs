//! The gateway seen from outside, as sentences: one file a feature, one function a promise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod architecture;
mod command_line;
mod config_faults;
mod crash;
mod demo;
mod login;
mod login_input;
mod login_wechat;
mod logout;
mod member;
mod refresh;
mod secrets;
mod store_file;
mod support;
mod tls;
mod token;
mod token_keys;
mod upgrade;
mod well_known;
