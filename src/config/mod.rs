//! `gateway.toml`, in three steps: *file* → *checked* → *running*.
//!
//! [`mod@file`] mirrors the text, key by key. [`check`] turns it into [`Config`], made of types that cannot be wrong, and
//! collects every fault on the way ([`Faults`]): file, line, dotted key, what is wrong and what to write. `gateway.rs`
//! makes it run. Nothing here opens a socket, a store or a key.

pub mod check;
pub mod fault;
pub mod file;
pub mod secret;
pub mod section;
pub mod value;

pub use check::load;
pub use fault::{Fault, Faults};
pub use section::*;
