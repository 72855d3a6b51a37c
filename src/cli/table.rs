//! Plain text in columns, for people and for `cut`: two spaces between columns, no lines, no colours.

use std::io::{self, Write};

use serde_json::Value;

/// Writes rows under their heads.
///
/// # Errors
/// When they cannot be written.
pub fn table(out: &mut dyn Write, heads: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| wide(cell));
        cells.chain([heads[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut line = |cells: &[&str]| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell}{}", " ".repeat(width.saturating_sub(wide(cell)))));
        writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    line(heads)?;
    rows.iter().try_for_each(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// Columns that a text takes on a terminal: two for each East Asian character, near enough.
fn wide(text: &str) -> usize {
    text.chars()
        .map(|c| {
            if matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{ffdc}' | '\u{1f300}'..='\u{1faff}') {
                2
            } else {
                1
            }
        })
        .sum()
}

/// A member of a JSON object as a cell: text that cannot move the cursor, `-` for nothing.
pub fn cell(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Bool(true) => "yes".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(false) | Value::Object(_) => String::new(),
    };
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_and_nothing_moves_the_cursor() {
        let rows: Vec<Vec<String>> = [("爱丽丝", json!(["a", "b"])), ("Bob\u{1b}[2J", json!([]))]
            .iter()
            .map(|(name, roles)| vec![cell(&json!(name)), cell(roles)])
            .collect();
        let mut text = Vec::new();
        table(&mut text, &["NAME", "ROLES"], &rows).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text, "NAME     ROLES\n爱丽丝   a,b\nBob\u{fffd}[2J  -\n");
    }
}
