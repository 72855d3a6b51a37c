//! The faults of one text while it is read, and where each of its keys stands.
//!
//! [`super::structure`] records the place of every key that it passes; whoever finds a fault names the key, and the line
//! follows.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::fault::{Fault, Faults};
use super::value::Wrong;

/// Longest quotation from the file in a fault, characters.
const MAX_QUOTE: usize = 60;

/// The faults found so far in one text.
#[derive(Debug)]
pub(super) struct Report<'t> {
    text: &'t str,
    /// Where each line starts, bytes.
    starts: Vec<usize>,
    places: HashMap<String, Place>,
    faults: Vec<Fault>,
    /// What stands in for variables that are not set, where that is no fault.
    stand_in: Option<&'static str>,
}

#[derive(Debug)]
struct Place {
    /// Byte where the key starts, or the value when it has none (an item of a list).
    start: usize,
    /// Bytes of the value as written.
    value: Range<usize>,
}

impl<'t> Report<'t> {
    /// An empty one about `text`.
    pub(super) fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts, places: HashMap::new(), faults: Vec::new(), stand_in: None }
    }

    /// Takes `text` for what stands in for a secret that is not known here.
    pub(super) fn stand_in(&mut self, text: Option<&'static str>) {
        self.stand_in = text;
    }

    /// Whether `text` is what stands in for a secret that is not known here.
    pub(super) fn is_stand_in(&self, text: &str) -> bool {
        self.stand_in.is_some_and(|stand_in| text.contains(stand_in))
    }

    /// Records where `key` stands.
    pub(super) fn place(&mut self, key: &str, start: usize, value: Range<usize>) {
        self.places.insert(key.to_owned(), Place { start, value });
    }

    /// A fault at `key`, or at the nearest table around it that is in the text.
    pub(super) fn fault(&mut self, key: &str, what: impl Into<String>) {
        let line = self.line(key);
        self.faults.push(Fault { line, key: key.to_owned(), what: what.into() });
    }

    /// A fault at byte `at`, about no key.
    pub(super) fn fault_at(&mut self, at: usize, what: impl Into<String>) {
        let line = Some(self.line_of(at));
        self.faults.push(Fault { line, key: String::new(), what: what.into() });
    }

    /// A fault about the value of `key`: what is wrong, what stands there, what to write.
    pub(super) fn refuse(&mut self, key: &str, wrong: &Wrong) {
        let what = match self.quote(key).filter(|_| wrong.quote) {
            Some(quote) => format!("{}, got {quote}; {}", wrong.what, wrong.write),
            None => wrong.to_string(),
        };
        self.fault(key, what);
    }

    /// Reads the value of `key` with `parse`; a refusal becomes a fault.
    pub(super) fn read<T>(&mut self, key: &str, text: &str, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        parse(text).map_err(|wrong| self.refuse(key, &wrong)).ok()
    }

    /// The line of `key`, 1-based, for a fault that names two places.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(place) = self.places.get(key) {
                return Some(self.line_of(place.start));
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }

    /// `key` and its line, as other faults refer to it.
    pub(super) fn refer(&self, key: &str) -> String {
        match self.line(key) {
            Some(line) => format!("{key} (line {line})"),
            None => key.to_owned(),
        }
    }

    /// Whether `key` itself has a fault already, so that rules between keys need not judge its default.
    pub(super) fn is_refused(&self, key: &str) -> bool {
        self.faults.iter().any(|fault| fault.key == key)
    }

    /// Whether `key`, or something in it, has a fault already.
    pub(super) fn is_refused_within(&self, key: &str) -> bool {
        let within = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.faults.iter().any(|fault| fault.key.strip_prefix(key).is_some_and(within))
    }

    /// Whether nothing has been found.
    pub(super) fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// All faults, in the order of their lines.
    pub(super) fn into_faults(mut self, file: &Path) -> Faults {
        self.faults.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
        self.faults.dedup();
        Faults { file: file.to_owned(), faults: self.faults }
    }

    fn line_of(&self, at: usize) -> usize {
        let line = self.starts.partition_point(|&start| start <= at).max(1);
        // What is missing at the end of the text is missing on its last line, not on the empty one after it.
        line.min(self.text.lines().count().max(1))
    }

    /// The value of `key` as it stands in the file: `${NAME}` and not what it holds. Nothing that may hold a password.
    fn quote(&self, key: &str) -> Option<String> {
        let quote = self.text.get(self.places.get(key)?.value.clone())?;
        let plain = !quote.is_empty() && !quote.contains(|c: char| c.is_control() || c == '@');
        plain.then(|| match quote.char_indices().nth(MAX_QUOTE) {
            Some((end, _)) => format!("{}…", &quote[..end]),
            None => quote.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_stands_at_the_nearest_table_that_is_written() {
        let mut report = Report::new("a = 1\n[b]\nc = 2\n");
        report.place("b", 7, 6..9);
        report.place("b.c", 10, 14..15);
        assert_eq!(report.line("b.c"), Some(3));
        assert_eq!(report.line("b.missing[2].x"), Some(2));
        assert_eq!(report.line("elsewhere"), None);
        report.fault_at(16, "at the end");
        assert_eq!(report.into_faults(Path::new("f")).faults[0].line, Some(3));
    }

    #[test]
    fn a_quotation_never_holds_a_password_or_a_line_break() {
        let text = "a = \"http://u:p@h\"\nb = \"\"\"x\ny\"\"\"\nc = \"fine\"\n";
        let mut report = Report::new(text);
        report.place("a", 0, 4..18);
        report.place("b", 19, 23..32);
        report.place("c", 33, 37..43);
        assert_eq!((report.quote("a"), report.quote("b")), (None, None));
        assert_eq!(report.quote("c").unwrap(), "\"fine\"");
    }
}
