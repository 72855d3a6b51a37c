//! `"${NAME}"` and `{ file = "…" }`: where secrets come from. The only reader of the environment.
//!
//! Nothing here puts a value into an error: a fault names the variable or the file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::value::Wrong;
use crate::ids::Secret;

/// Largest secret file, bytes.
const MAX_FILE: u64 = 64 * 1024;

/// The environment variables that a configuration may name.
#[derive(Clone)]
pub struct Environment(Source);

#[derive(Clone)]
enum Source {
    Process,
    Incomplete,
    Given(BTreeMap<String, String>),
}

impl Environment {
    /// That of this process.
    pub fn process() -> Self {
        Self(Source::Process)
    }

    /// That of this process, with something that fits in place of each variable that is not set. For commands that need to
    /// know where things are and not what the secrets are.
    pub fn incomplete() -> Self {
        Self(Source::Incomplete)
    }

    /// Exactly these variables.
    pub fn of<const N: usize>(variables: [(&str, &str); N]) -> Self {
        Self(Source::Given(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }

    /// What stands in for variables that are not set, in an incomplete environment.
    pub(super) fn stand_in(&self) -> Option<&'static str> {
        matches!(self.0, Source::Incomplete).then_some(STAND_IN)
    }

    /// The value of a variable.
    ///
    /// # Errors
    /// Why there is none, as the end of a sentence.
    pub fn get(&self, name: &str) -> Result<String, &'static str> {
        let value = match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the one reader of the environment")]
            Source::Process | Source::Incomplete => std::env::var_os(name).map(std::ffi::OsString::into_string),
            Source::Given(variables) => variables.get(name).cloned().map(Ok),
        };
        match value {
            None if matches!(self.0, Source::Incomplete) => Ok(STAND_IN.to_owned()),
            None => Err("is not set"),
            Some(Ok(value)) if value.is_empty() => Err("is empty"),
            Some(Ok(value)) => Ok(value),
            Some(Err(_)) => Err("is not UTF-8"),
        }
    }
}

/// Long enough for every secret, and the shape of the one that has a shape (EncodingAESKey: 43 characters of base64).
const STAND_IN: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The values are not shown.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Environment(…)")
    }
}

/// Puts the variables that `text` names into it. `$${` stands for `${` itself.
///
/// # Errors
/// Every fault of it: variables that are not there, and `${` that names none.
pub(super) fn expand<'a>(text: &'a str, from: &Environment) -> Result<Cow<'a, str>, Vec<String>> {
    if !text.contains("${") {
        return Ok(Cow::Borrowed(text));
    }
    let mut expanded = String::with_capacity(text.len());
    let mut faults = Vec::new();
    let mut left = text;
    while let Some(start) = left.find("${") {
        let before = &left[..start];
        left = &left[start + 2..];
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            continue;
        }
        expanded.push_str(before);
        let end = left.find('}').filter(|&end| is_variable(&left[..end]));
        let Some(end) = end else {
            faults.push(
                "has \"${\" without the name of an environment variable; write ${NAME}, or $${ for the characters \
                 themselves"
                    .to_owned(),
            );
            break;
        };
        let name = &left[..end];
        left = &left[end + 1..];
        match from.get(name) {
            Ok(value) => expanded.push_str(&value),
            Err(why) => faults.push(format!("the environment variable {name} {why}; set it before starting wxgate")),
        }
    }
    expanded.push_str(left);
    if faults.is_empty() { Ok(Cow::Owned(expanded)) } else { Err(faults) }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.len() <= 128
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The secret in `path`, without the one line break that editors put at the end.
///
/// # Errors
/// When it is no file, cannot be read, or is empty or too large to be a secret. The path is not repeated: its text may
/// have come from a variable.
pub(super) fn read(path: &Path) -> Result<Secret<String>, Wrong> {
    let cannot =
        |why: std::io::Error| Wrong::new(format!("cannot be read ({why})"), "write the path of a readable file");
    // Asked before it is opened: opening a pipe waits for its writer.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(Wrong::new("is not a file", "write the path of one"));
    }
    let mut text = String::new();
    let size = File::open(path).map_err(cannot)?.take(MAX_FILE + 1).read_to_string(&mut text).map_err(cannot)?;
    if size as u64 > MAX_FILE {
        return Err(Wrong::new("is larger than 64KiB", "write the path of a file that holds the secret alone"));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err(Wrong::new("is an empty file", "put the secret into it"));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_wherever_they_are_named() {
        let env = Environment::of([("HOST", "example.com"), ("A", "1")]);
        for (text, expected) in [
            ("plain $HOME", "plain $HOME"),
            ("${HOST}", "example.com"),
            ("https://${HOST}/${A}", "https://example.com/1"),
            ("$${HOST}", "${HOST}"),
            ("$${A}${A}", "${A}1"),
            ("$$", "$$"),
        ] {
            assert_eq!(expand(text, &env).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_missing_variable_is_named_and_no_value_is() {
        let env = Environment::of([("FULL", "hunter2"), ("EMPTY", "")]);
        let faults = expand("${FULL}${NONE}${EMPTY}${", &env).unwrap_err();
        assert_eq!(faults.len(), 3);
        assert!(faults[0].contains("NONE is not set") && faults[1].contains("EMPTY is empty"), "{faults:?}");
        assert!(!faults.concat().contains("hunter2"));
    }

    #[test]
    fn what_is_given_is_used_once_and_not_expanded_again() {
        let env = Environment::of([("A", "${B}"), ("B", "b")]);
        assert_eq!(expand("${A}", &env).unwrap(), "${B}");
    }

    #[test]
    fn a_secret_file_loses_one_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (content, expected) in [("abc", "abc"), ("abc\n", "abc"), ("abc\r\n", "abc"), ("abc\n\n", "abc\n")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read(&path).unwrap().expose(), expected, "{content:?}");
        }
    }

    #[test]
    fn a_secret_file_that_is_empty_huge_or_missing_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert!(read(&path).unwrap_err().what.contains("cannot be read"));
        assert!(read(folder.path()).unwrap_err().what.contains("is not a file"));
        std::fs::write(&path, "\n").unwrap();
        assert!(read(&path).unwrap_err().what.contains("empty"));
        std::fs::write(&path, "a".repeat(64 * 1024 + 1)).unwrap();
        assert!(read(&path).unwrap_err().what.contains("larger than 64KiB"));
    }
}
