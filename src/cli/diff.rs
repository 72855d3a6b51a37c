//! `wxgate diff`: what a change of the configuration does. Opens no socket.

use std::io::{self, Write};
use std::path::Path;

use crate::config::diff::diff;
use crate::config::{Config, Environment, Faults, parse, read};

/// Says on `out` what is different in the file `new`, or prints the faults of both on `err`. The exit status is 0, or 64
/// when there are faults.
///
/// # Errors
/// When the answer cannot be written.
pub fn run(old: &Path, new: &Path, env: &Environment, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let load = |path: &Path| -> Result<Config, Faults> { parse(read(path)?, path, env) };
    let (old, new) = match (load(old), load(new)) {
        (Ok(old), Ok(new)) => (old, new),
        (old, new) => {
            for faults in [old.err(), new.err()].into_iter().flatten() {
                writeln!(err, "{faults}")?;
            }
            return Ok(super::USAGE);
        }
    };
    let changes = diff(&old, &new);
    if changes.is_empty() {
        writeln!(out, "nothing changes")?;
    }
    for change in changes {
        writeln!(out, "{change}")?;
    }
    Ok(0)
}
