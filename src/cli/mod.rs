//! The commands of `wxgate`, one file each. Nothing else prints.

pub mod check;
pub mod keys;
pub mod schema;
pub mod simulate;
