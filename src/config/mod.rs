//! `gateway.toml`, in three steps: *file* → *checked* → *running*.
//!
//! [`mod@file`] mirrors the text, key by key. [`structure`] holds the text against it, [`check`] turns it into
//! [`Config`], made of types that cannot be wrong, and both collect every fault on the way ([`Faults`]): file, line,
//! dotted key, what is wrong and what to write. `gateway.rs` makes
//! the result run. Nothing here opens a socket, a store or a key.

mod app_text;
pub mod certificate;
mod check;
pub mod database;
pub mod diff;
pub mod fault;
pub mod file;
mod format;
mod judge;
mod keys;
mod load;
pub mod pattern;
pub mod protected;
mod report;
pub mod rule;
pub mod rule_text;
pub mod secret;
pub mod section;
mod shown;
mod structure;
pub mod telemetry;
pub mod telemetry_text;
pub mod tls;
pub mod tls_text;
pub mod transform;
pub mod transform_text;
pub mod transport;
pub mod url;
pub mod value;
mod web;

pub use certificate::Certificate;
pub use fault::{Fault, Faults};
pub use format::TokenFormat;
pub use load::{digest, load, parse, read};
pub use secret::Environment;
pub use section::*;
pub use tls::{Acme, Challenge, Clients, Tls, TlsVersion};
