//! The gateway seen from outside, as sentences: one file a feature, one function a promise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod access_token;
mod architecture;
mod check;
mod command_line;
mod config_faults;
mod cors;
mod crash;
mod demo;
mod drain;
mod forward;
mod framing;
mod health;
mod identity;
mod limit;
mod limits;
mod login;
mod login_input;
mod login_wechat;
mod logout;
mod member;
mod path;
mod phone;
mod policy;
mod problem;
mod profile;
mod refresh;
mod reload;
mod retry;
mod route;
mod secrets;
mod store_file;
mod support;
mod token;
mod token_keys;
mod well_known;
