//! What logins and refreshes cost: the real binary, durable as in production, on each store, in front of a WeChat that does
//! next to nothing.
//!
//! `cargo bench --bench logins` prints every table as Markdown: throughput and CPU, memory of many sessions, and the start with
//! a million of them. `-- --help` says how to ask for a part. Callers, WeChat, stores and gateway share the machine's cores,
//! so operations per second are a lower bound; whose CPU it was is told. Whoever gets no answer for a minute ends the run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    missing_docs
)]

mod callers;
mod cpu;
mod gateway;
mod memory;
mod restart;
mod stores;
mod table;
mod throughput;
mod wechat;

#[path = "../../tests/gateway/support/held.rs"]
mod held;
#[path = "../../tests/gateway/support/postgres.rs"]
mod postgres;
#[path = "../../tests/gateway/support/redis.rs"]
mod redis;

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Logins and refreshes per second, and the CPU of each.
    Throughput,
    /// What so many sessions take.
    Memory,
    /// How soon a start with so many sessions is ready.
    Restart,
}

/// Where members and sessions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Both in one SQLite file.
    Sqlite,
    /// Sessions in a Redis that syncs each write, members in Postgres; both are started here.
    Redis,
}

#[derive(Debug, Clone, Parser)]
struct Wish {
    /// What to measure.
    #[arg(long, value_delimiter = ',', default_value = "throughput,memory,restart")]
    parts: Vec<Part>,
    /// On which stores.
    #[arg(long, value_delimiter = ',', default_value = "sqlite,redis")]
    stores: Vec<Kind>,
    /// How long WeChat takes for each code, ms.
    #[arg(long, value_delimiter = ',', default_value = "0,50")]
    wechat_ms: Vec<u64>,
    /// Rounds of each row; the table shows their median, least and greatest.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Operations of each round.
    #[arg(long, default_value_t = 20_000)]
    operations: u64,
    /// Callers at once, each with a connection of its own; where WeChat takes its time, ten for each of its ms at least.
    #[arg(long, default_value_t = 64)]
    callers: u64,
    /// Sessions whose memory is measured.
    #[arg(long, default_value_t = 100_000)]
    sessions: u64,
    /// Sessions that are there at the start; every hundredth is revoked. The last row has as many live revocations.
    #[arg(long, default_value_t = 1_000_000)]
    restart_sessions: u64,
    /// Where files of databases and keys go: on the disk whose syncs are to be measured. By default the system's folder for
    /// what is temporary.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Another binary of the gateway than the one that cargo has built for this.
    #[arg(long)]
    wxgate: Option<PathBuf>,
    /// `cargo bench` says this.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Wish {
    /// The gateway's binary.
    fn binary(&self) -> &Path {
        self.wxgate.as_deref().unwrap_or(Path::new(env!("CARGO_BIN_EXE_wxgate")))
    }

    /// A new folder that goes with its handle.
    fn new_folder(&self) -> tempfile::TempDir {
        match &self.folder {
            Some(folder) => tempfile::tempdir_in(folder).unwrap(),
            None => tempfile::tempdir().unwrap(),
        }
    }
}

#[tokio::main]
async fn main() {
    let mut wish = Wish::parse();
    // It is started in another folder.
    wish.wxgate = wish.wxgate.map(|binary| binary.canonicalize().expect("the binary is there"));
    for part in &wish.parts {
        match part {
            Part::Throughput => throughput::measure(&wish).await,
            Part::Memory => memory::measure(&wish).await,
            Part::Restart => restart::measure(&wish).await,
        }
    }
}
