//! The gateway seen from outside, as sentences: one file a feature, one function a promise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod architecture;
mod config_faults;
mod login;
mod login_input;
mod login_wechat;
mod logout;
mod member;
mod refresh;
mod support;
mod token;
mod token_keys;
mod well_known;
