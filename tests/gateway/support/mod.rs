//! What the tests stand on. Everything listens on port 0, waits for events and never for time, and ends with its test.
//!
//! [`gateway`] is the whole gateway in the test's process; [`raw`] is a client that sends bytes and reads answers strictly; [`upstream`] is a service behind the gateway;
//! [`people`] is what a member's phone sends along; [`process`] runs the real binary, [`served`] and [`place`] run it as a
//! gateway; [`source`] reads Rust text for the architecture test.

pub(crate) mod acme;
pub(crate) mod authority;
pub(crate) mod cable;
pub(crate) mod collector;
pub(crate) mod gateway;
pub(crate) mod grpc;
pub(crate) mod held;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod operate;
pub(crate) mod operator;
pub(crate) mod people;
pub(crate) mod place;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod redis;
pub(crate) mod served;
pub(crate) mod source;
pub(crate) mod switch;
pub(crate) mod upstream;

use std::time::Duration;

/// How long anything may take before a test fails. Generous: it is never waited for when all is well.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
