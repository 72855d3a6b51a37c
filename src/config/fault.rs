//! What is wrong with a `gateway.toml`: file, line, dotted key, what is wrong, what to write.

use std::fmt;
use std::path::PathBuf;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// 1-based line; `None` when the fault is in no line (a missing table).
    pub line: Option<usize>,
    /// Dotted key, such as `route[2].auth`; empty when the whole file is meant.
    pub key: String,
    /// What is wrong and what to write instead.
    pub what: String,
}

/// Every fault of one file, in the order of its lines; never empty.
#[derive(Debug, Clone)]
pub struct Faults {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
}

/// One line per fault: `gateway.toml:12: route[2].auth: …`.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.faults.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some(line) = fault.line {
                write!(f, ":{line}")?;
            }
            if !fault.key.is_empty() {
                write!(f, ": {}", fault.key)?;
            }
            write!(f, ": {}", fault.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
