//! The `wxgate` binary: parse the command line, run the command, return the exit status.

use std::process::ExitCode;

use clap::Parser as _;
use wxgate::cli::{Cli, USAGE, run};

/// Serves many small, short-lived allocations of many threads better than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => ExitCode::from(run(cli)),
        Err(error) => {
            // Help and version are printed by the same road, to standard output, and are no fault.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
        }
    }
}
