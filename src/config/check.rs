//! To be written.
use super::{Config, Faults};
use std::path::Path;
/// Reads, checks.
/// # Errors
/// All faults.
pub fn load(_path: &Path) -> Result<Config, Faults> {
    unimplemented!()
}
