//! The gateway from outside: one file a feature, one sentence a test.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests may fail loudly")]

mod config_faults;
