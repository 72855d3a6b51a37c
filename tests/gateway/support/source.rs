//! Rust text, split into what the architecture test asks about: code without comments and texts, the string literals,
//! and the paths that begin at the crate root. Not a parser: it knows just enough of the grammar to place both.

/// One file.
#[derive(Debug)]
pub(crate) struct Source {
    /// The text with every comment, string and `char` blanked, and every `#[cfg(test)]` item too. Same lines as the file.
    pub(crate) code: String,
    /// String literals outside `#[cfg(test)]`: line and content.
    pub(crate) strings: Vec<(usize, String)>,
    /// As `code`, with the test items left in.
    pub(crate) code_with_tests: String,
}

impl Source {
    pub(crate) fn read(text: &str) -> Self {
        let (code_with_tests, literals) = split(text);
        let code = without_tests(&code_with_tests);
        // Where a test item stood, the quote that opens a literal is blank.
        let strings = literals.into_iter().filter(|(at, _)| code.as_bytes()[*at] == b'"');
        let strings = strings.map(|(at, content)| (line(&code, at), content)).collect();
        Self { code, strings, code_with_tests }
    }

    /// Paths that start with one of `roots` (`crate`, …): line and the segments after it, groups spread out.
    pub(crate) fn paths_from(&self, roots: &[&str]) -> Vec<(usize, Vec<String>)> {
        let mut found = Vec::new();
        for root in roots {
            let start = format!("{root}::");
            for (at, _) in self.code.match_indices(&start) {
                if !self.code[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':')) {
                    let mut paths = Vec::new();
                    spread(&self.code[at + start.len()..], &mut Vec::new(), &mut paths);
                    found.extend(paths.into_iter().map(|path| (line(&self.code, at), path)));
                }
            }
        }
        found
    }

    /// Lines on which this code stands.
    pub(crate) fn lines_with<'a>(&'a self, code: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code_with_tests.match_indices(code).map(|(at, _)| line(&self.code_with_tests, at))
    }
}

fn line(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1
}

/// Blanks comments and literals (their quotes stay); returns where each string begins, and its content. Every byte that
/// goes becomes one space, so that positions hold.
fn split(text: &str) -> (String, Vec<(usize, String)>) {
    let bytes = text.as_bytes();
    let mut out: Vec<u8> = bytes.iter().map(|b| if b.is_ascii() { *b } else { b'_' }).collect();
    let mut strings = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let rest = &bytes[i..];
        let end = if rest.starts_with(b"//") {
            blank(&mut out, i, i + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()))
        } else if rest.starts_with(b"/*") {
            blank(&mut out, i, i + block_comment(rest))
        } else if rest[0] == b'"' {
            let close = i + 1 + plain_string(&rest[1..]);
            strings.push((i, text[i + 1..close].to_owned()));
            blank(&mut out, i + 1, close) + 1
        } else if let Some(hashes) = raw_string(bytes, i) {
            let open = i + 1 + hashes;
            let fence = format!("\"{}", "#".repeat(hashes));
            let close = text[open + 1..].find(&fence).map_or(bytes.len(), |n| open + 1 + n);
            strings.push((open, text[open + 1..close].to_owned()));
            blank(&mut out, open + 1, close) + fence.len()
        } else if rest[0] == b'\'' {
            blank(&mut out, i, i + char_literal(rest))
        } else {
            i + 1
        };
        i = end.max(i + 1);
    }
    (String::from_utf8_lossy(&out).into_owned(), strings)
}

fn blank(out: &mut [u8], from: usize, to: usize) -> usize {
    let to = to.min(out.len());
    for b in &mut out[from..to] {
        if *b != b'\n' {
            *b = b' ';
        }
    }
    to
}

/// Length of a block comment; they nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut i) = (0_usize, 0);
    while i < rest.len() {
        match &rest[i..] {
            [b'/', b'*', ..] => (depth, i) = (depth + 1, i + 2),
            [b'*', b'/', ..] if depth == 1 => return i + 2,
            [b'*', b'/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
    }
    rest.len()
}

/// Length of a string's content, up to its closing quote.
fn plain_string(content: &[u8]) -> usize {
    let mut i = 0;
    while i < content.len() && content[i] != b'"' {
        i += if content[i] == b'\\' { 2 } else { 1 };
    }
    i.min(content.len())
}

/// Number of `#` when `r"…"` or `r#"…"#` (also `br`, `cr`) begins at this `r`.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let before = match at.checked_sub(1).map(|n| bytes[n]) {
        Some(b'b' | b'c') => at.checked_sub(2),
        _ => at.checked_sub(1),
    };
    if bytes[at] != b'r' || before.is_some_and(|n| word(&bytes[n])) {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    (bytes.get(at + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

/// Length of a `char` literal; 1 for the quote of a lifetime.
fn char_literal(rest: &[u8]) -> usize {
    match rest {
        [_, b'\\', _, tail @ ..] => 3 + tail.iter().position(|b| *b == b'\'').map_or(0, |n| n + 1),
        _ => {
            let width = std::str::from_utf8(&rest[1..rest.len().min(5)])
                .or_else(|e| std::str::from_utf8(&rest[1..1 + e.valid_up_to()]))
                .ok()
                .and_then(|s| s.chars().next())
                .map_or(0, char::len_utf8);
            if width > 0 && rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 1 }
        }
    }
}

/// Blanks each item behind `#[cfg(test)]`: to its closing brace, or to a `;` before any brace.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.as_bytes().to_vec();
    for (at, _) in code.match_indices(MARK) {
        let mut depth = 0_usize;
        let mut end = code.len();
        for (i, b) in code.bytes().enumerate().skip(at + MARK.len()) {
            match b {
                b'{' => depth += 1,
                b'}' if depth <= 1 => {
                    end = i + 1;
                    break;
                }
                b'}' => depth -= 1,
                b';' if depth == 0 => {
                    end = i + 1;
                    break;
                }
                _ => {}
            }
        }
        blank(&mut out, at, end);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Collects the paths that begin at `text`; returns how many bytes they take.
fn spread(text: &str, before: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let skip = text.len() - text.trim_start().len();
    let at = &text[skip..];
    if at.starts_with('{') {
        let mut i = 1;
        while i < at.len() && !at[i..].starts_with('}') {
            let used = spread(&at[i..], before, found);
            // A comma, or ` as name`: on to the next entry.
            i += used + at[i + used..].find([',', '}', ';']).unwrap_or(at.len() - i - used);
            i += usize::from(at[i..].starts_with(','));
            i += at[i..].len() - at[i..].trim_start().len();
        }
        return skip + (i + 1).min(at.len());
    }
    let name: String = at.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '*').collect();
    let mut used = skip + name.len();
    before.push(name);
    if text[used..].starts_with("::") {
        used += 2 + spread(&text[used + 2..], before, found);
    } else {
        found.push(before.clone());
    }
    before.pop();
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<(usize, String)> {
        let source = Source::read(text);
        source.paths_from(&["crate", "super::super"]).into_iter().map(|(n, p)| (n, p.join("::"))).collect()
    }

    #[test]
    fn paths_are_found_in_uses_groups_and_bodies() {
        let text = "use crate::a::B;\nuse crate::{c, d::{E as F, g::*}, h};\nfn f(x: crate::i::J) -> u8 { $crate::k!() }\n\
                    use super::super::l::M;\nuse notcrate::z; use a::crate::y;";
        let found = paths(text);
        let names: Vec<&str> = found.iter().map(|(_, p)| p.as_str()).collect();
        assert_eq!(names, ["a::B", "c", "d::E", "d::g::*", "h", "i::J", "k", "l::M"]);
        assert_eq!(found.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2, 2, 2, 2, 3, 3, 4]);
    }

    #[test]
    fn comments_texts_and_test_items_are_no_code() {
        let text = "// crate::a\n/* crate::b /* crate::c */ */ let x = \"crate::d\\\" crate::e\"; /// [`crate::f`]\n\
                    let y = r#\"crate::g\" crate::h\"#; let q = '\"'; let e = '\\''; fn g<'a>() { crate::i::j() }\n\
                    #[cfg(test)]\nmod tests { use crate::k; fn f() { if true {} } }\n#[cfg(test)] use crate::l;\n\
                    use crate::m;";
        assert_eq!(paths(text), [(3, "i::j".into()), (7, "m".into())]);
    }

    #[test]
    fn strings_are_told_with_their_lines() {
        let text = "f(\"a\");\ng(r\"b\", \"ü\", 'x');\n#[cfg(test)]\nmod t { const C: &str = \"no\"; }\nh(b\"c\");";
        let strings = Source::read(text).strings;
        assert_eq!(strings, [(1, "a".into()), (2, "b".into()), (2, "ü".into()), (5, "c".into())]);
    }
}
