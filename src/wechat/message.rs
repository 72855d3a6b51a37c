//! Reading a pushed message: JSON, or WeChat's XML, as one JSON object.
//!
//! The XML is the little that WeChat sends (official page "Message push"): elements without attributes, text, CDATA, the
//! five entities of XML. Everything else is refused: no document type, so no entities of anybody's own; no comments, no
//! processing instructions. An element with elements in it becomes an object, several of one name a list; all other
//! values are text, since XML does not tell a number from one.

use serde_json::{Map, Value};

/// Deepest nesting; WeChat's messages have four levels.
const MAX_DEPTH: usize = 8;

/// Most elements in one message.
const MAX_ELEMENTS: usize = 1000;

/// Not a message, or not one that can be read in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is neither a JSON object nor WeChat's XML")]
pub struct Malformed;

/// What a message was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// XML.
    Xml,
}

/// The members of a message.
///
/// # Errors
/// [`Malformed`].
pub fn parse(body: &[u8]) -> Result<(Map<String, Value>, Format), Malformed> {
    let text = std::str::from_utf8(body).map_err(|_| Malformed)?.trim();
    if text.starts_with('{') {
        let object = serde_json::from_str(text).map_err(|_| Malformed)?;
        return Ok((object, Format::Json));
    }
    let mut reader = Reader { rest: text, elements: 0 };
    reader.declaration()?;
    let (name, value) = reader.element(0)?;
    match value {
        Value::Object(object) if name == "xml" && reader.rest.trim().is_empty() => Ok((object, Format::Xml)),
        _ => Err(Malformed),
    }
}

struct Reader<'t> {
    rest: &'t str,
    elements: usize,
}

impl<'t> Reader<'t> {
    fn take(&mut self, start: &str) -> bool {
        match self.rest.strip_prefix(start) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Everything before `end`, which is passed over.
    fn until(&mut self, end: &str) -> Result<&'t str, Malformed> {
        let (before, rest) = self.rest.split_once(end).ok_or(Malformed)?;
        self.rest = rest;
        Ok(before)
    }

    /// `<?xml …?>`, if it is there.
    fn declaration(&mut self) -> Result<(), Malformed> {
        if self.take("<?xml ") && self.until("?>")?.contains('<') {
            return Err(Malformed);
        }
        self.rest = self.rest.trim_start();
        Ok(())
    }

    fn name(&mut self) -> Result<&'t str, Malformed> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let end = self.rest.find(|c| !fits(c)).ok_or(Malformed)?;
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') { Ok(name) } else { Err(Malformed) }
    }

    /// An element, from its `<` to the end of its end tag.
    fn element(&mut self, depth: usize) -> Result<(&'t str, Value), Malformed> {
        self.elements += 1;
        if depth > MAX_DEPTH || self.elements > MAX_ELEMENTS || !self.take("<") {
            return Err(Malformed);
        }
        let name = self.name()?;
        self.rest = self.rest.trim_start();
        if self.take("/>") {
            return Ok((name, Value::String(String::new())));
        }
        if !self.take(">") {
            return Err(Malformed);
        }
        let (mut text, mut has_cdata, mut members) = (String::new(), false, Map::new());
        loop {
            if self.take("<![CDATA[") {
                text.push_str(self.until("]]>")?);
                has_cdata = true;
            } else if self.take("</") {
                if self.name()? != name {
                    return Err(Malformed);
                }
                self.rest = self.rest.trim_start();
                if !self.take(">") {
                    return Err(Malformed);
                }
                break;
            } else if self.rest.starts_with('<') {
                let (name, value) = self.element(depth + 1)?;
                // Two values of one member of the message itself: which one is meant cannot be known.
                if depth == 0 && members.contains_key(name) {
                    return Err(Malformed);
                }
                add(&mut members, name, value);
            } else {
                let end = self.rest.find('<').ok_or(Malformed)?;
                let (raw, rest) = self.rest.split_at(end);
                self.rest = rest;
                unescape(raw, &mut text)?;
            }
        }
        match (members.is_empty(), text.trim().is_empty() && !has_cdata) {
            (true, true) if depth == 0 => Ok((name, Value::Object(members))),
            (true, _) => Ok((name, Value::String(text))),
            (false, true) => Ok((name, Value::Object(members))),
            // Text beside elements.
            (false, false) => Err(Malformed),
        }
    }
}

/// A second value of one name makes a list.
fn add(members: &mut Map<String, Value>, name: &str, value: Value) {
    match members.get_mut(name) {
        None => {
            members.insert(name.to_owned(), value);
        }
        Some(Value::Array(list)) => list.push(value),
        Some(first) => {
            let list = vec![first.take(), value];
            *first = Value::Array(list);
        }
    }
}

/// Text with the five entities of XML; any other `&` is refused.
fn unescape(raw: &str, into: &mut String) -> Result<(), Malformed> {
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('&') {
        into.push_str(before);
        let (entity, after) = after.split_once(';').ok_or(Malformed)?;
        into.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => return Err(Malformed),
        });
        rest = after;
    }
    into.push_str(rest);
    Ok(())
}

/// `text` as the content of an element: in CDATA, split where it would end one.
pub fn cdata(text: &str) -> String {
    format!("<![CDATA[{}]]>", text.replace("]]>", "]]]]><![CDATA[>"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Option<Value> {
        parse(text.as_bytes()).ok().map(|(object, _)| Value::Object(object))
    }

    #[test]
    fn xml_becomes_the_object_that_json_would_be() {
        for (xml, expected) in [
            ("<xml></xml>", json!({})),
            (
                "<xml>\n <A><![CDATA[a <b> &amp; c]]></A>\n <B>1</B><C/>\n</xml>",
                json!({"A": "a <b> &amp; c", "B": "1", "C": ""}),
            ),
            ("<?xml version=\"1.0\"?>\n<xml><A>&lt;&amp;&gt;&quot;&apos;</A></xml>", json!({"A": "<&>\"'"})),
            ("<xml><E><L><I>1</I></L><L><I>2</I></L></E></xml>", json!({"E": {"L": [{"I": "1"}, {"I": "2"}]}})),
            ("<xml><A><![CDATA[]]></A><B> </B ></xml >", json!({"A": "", "B": " "})),
        ] {
            assert_eq!(read(xml), Some(expected), "{xml}");
        }
        assert_eq!(read(r#"{"MsgId": 18446744073709551615}"#), Some(json!({"MsgId": u64::MAX})));
    }

    #[test]
    fn everything_else_is_refused() {
        let deep = format!("<xml>{}{}</xml>", "<a>".repeat(20), "</a>".repeat(20));
        let many = format!("<xml><l>{}</l></xml>", "<a/>".repeat(MAX_ELEMENTS));
        let bomb = r#"<!DOCTYPE xml [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><xml><A>&b;</A></xml>"#;
        let outside = r#"<!DOCTYPE xml SYSTEM "file:///etc/passwd"><xml></xml>"#;
        for bad in [
            "",
            "x",
            "[]",
            "{",
            "<xml>",
            "<xml/>",
            "<yml></yml>",
            "<xml></yml>",
            "<xml>text</xml>",
            "<xml><A></B></xml>",
            "<xml><A>x<B/></A></xml>",
            "<xml><A>1</A><A>2</A></xml>",
            "<xml><A x=\"1\">1</A></xml>",
            "<xml><!-- c --></xml>",
            "<xml><?p?></xml>",
            "<xml><A>&a;</A></xml>",
            "<xml><A>&#65;</A></xml>",
            "<xml><A>a & b</A></xml>",
            "<xml></xml><xml></xml>",
            "<xml><![CDATA[x</xml>",
            &deep,
            &many,
            bomb,
            outside,
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert!(parse(b"<xml><A>\xff</A></xml>").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_a_message_or_malformed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn anything_like_xml_is_a_message_or_malformed(
            parts in proptest::collection::vec(r"(<xml>|</xml>|<a>|</a>|<!\[CDATA\[|\]\]>|&amp;|&|;|<|>|/|[a-z ]{0,3})", 0..30)
        ) {
            let _ = parse(parts.concat().as_bytes());
        }

        #[test]
        fn any_text_survives_cdata(text in "\\PC*") {
            let xml = format!("<xml><A>{}</A></xml>", cdata(&text));
            prop_assert_eq!(read(&xml), Some(json!({ "A": text })));
        }
    }
}
