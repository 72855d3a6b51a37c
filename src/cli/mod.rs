//! The commands of `wxgate`, one file each. Nothing else prints.

pub mod simulate;
