//! To be written.
/// client
#[derive(Debug)]
pub struct Client;
