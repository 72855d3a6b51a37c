//! The gateway seen from outside, as sentences: one file a feature, one function a promise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod architecture;
mod config_faults;
mod limit;
mod login;
mod support;
