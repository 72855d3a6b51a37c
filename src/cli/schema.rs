//! `wxgate schema`: the JSON Schema of `gateway.toml`, for editor completion.

use std::io::{self, Write};

use crate::config::file::schema;

/// Prints the schema on `out`.
///
/// # Errors
/// When it cannot be written.
pub fn run(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{:#}", schema())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_a_json_schema() {
        let mut out = Vec::new();
        run(&mut out).unwrap();
        let schema: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(schema["type"], "object");
        assert_eq!(schema["$defs"]["Server"]["properties"]["listen"]["type"], "array");
    }
}
