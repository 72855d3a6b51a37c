//! Reading an answer of WeChat: bytes in, JSON object without an errcode out.
//!
//! The content type is not looked at: WeChat labels JSON `text/plain`. What is not one whole JSON object is refused; only
//! raw control characters inside strings are forgiven, because WeChat sends them (in nicknames) and JSON forbids them.

use serde_json::{Map, Value};

use super::{Errcode, Error};

/// The object that `body` holds.
///
/// # Errors
/// [`Error::Answer`] when it holds anything else, or an `errcode` that cannot be read; [`Error::Errcode`] when the
/// `errcode` is not 0, whatever stands beside it.
pub fn parse(body: &[u8]) -> Result<Map<String, Value>, Error> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::Answer("it is empty"));
    }
    let text = std::str::from_utf8(body).map_err(|_| Error::Answer("it is not UTF-8"))?;
    let value = serde_json::from_str(text).or_else(|_| serde_json::from_str(&escape_controls(text)));
    let Ok(Value::Object(object)) = value else { return Err(Error::Answer("it is not a JSON object")) };
    match Errcode::read(&object)? {
        Some(errcode) => Err(Error::Errcode(errcode)),
        None => Ok(object),
    }
}

/// `text` with the control characters inside its strings written as JSON escapes. Those between the values stay: there
/// they are white space or a fault.
pub(super) fn escape_controls(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    let (mut in_string, mut after_backslash) = (false, false);
    for c in text.chars() {
        if in_string && c < ' ' {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
        in_string ^= c == '"' && !after_backslash;
        after_backslash = in_string && c == '\\' && !after_backslash;
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_one_json_object_is_refused() {
        let bad: [&[u8]; 14] = [
            b"",
            b" \r\n",
            b"null",
            b"true",
            b"7",
            b"\"text\"",
            b"[]",
            b"[{\"openid\":\"o\"}]",
            b"<html><body>502 Bad Gateway</body></html>",
            b"{\"openid\":\"o\"",
            b"{\"openid\":\"o\"}{}",
            b"{\"openid\":\"o\"}garbage",
            b"{\"openid\":\"\xff\"}",
            b"{\x01\"openid\":\"o\"}",
        ];
        for body in bad {
            assert!(matches!(parse(body), Err(Error::Answer(_))), "{:?}", String::from_utf8_lossy(body));
        }
        let deep = "[".repeat(60_000);
        assert!(matches!(parse(deep.as_bytes()), Err(Error::Answer(_))), "deep nesting must not end the process");
    }

    #[test]
    fn raw_control_characters_inside_strings_are_forgiven() {
        let object = parse(b"{\"nick\":\"a\x01b\nc\\\"\t\",\r\n\t\"n\":1}\n").unwrap();
        assert_eq!(object["nick"], "a\u{1}b\nc\"\t");
        assert_eq!(object["n"], 1);
    }

    #[test]
    fn an_errcode_beside_an_openid_is_a_failure() {
        let answer = parse(br#"{"openid":"o1","session_key":"x","errcode":40029,"errmsg":"invalid code"}"#);
        assert!(matches!(answer, Err(Error::Errcode(Errcode { meaning: crate::wechat::Meaning::BadCode, .. }))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&body);
        }

        #[test]
        fn any_string_survives_with_its_control_characters_raw(text in "[a-z\\x00-\\x1f\u{e9}]*") {
            let object = parse(format!("{{\"t\":\"{text}\"}}").as_bytes()).unwrap();
            prop_assert_eq!(object["t"].as_str().unwrap(), text);
        }
    }
}
