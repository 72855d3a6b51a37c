//! To be written.
/// code
#[derive(Debug)]
pub struct Errcode {
    /// code
    pub code: i64,
}
/// meaning
#[derive(Debug)]
pub struct Meaning;
