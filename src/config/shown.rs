//! The configuration as an operator may see it: what the file says, with secrets hidden.
//!
//! Nothing is put in: `"${NAME}"` stays as it is written. What the schema calls a secret is hidden, whether it is written out,
//! named by a variable or in a file; so are user and password in any address.

use std::fmt;

use serde_json::{Map, Value};

use super::file;

/// The file's content as JSON. `Debug` says nothing: what it means stands beside it.
#[derive(Clone, Default)]
pub struct Shown(Value);

impl Shown {
    /// The JSON.
    pub fn json(&self) -> &Value {
        &self.0
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(…)")
    }
}

const HIDDEN: &str = "(hidden)";

/// What `text` says. It has been read and found good before; else there is nothing to show.
pub(super) fn shown(text: &str) -> Shown {
    let Ok(table) = toml::from_str::<toml::Table>(text) else { return Shown::default() };
    let Ok(mut value) = serde_json::to_value(table) else { return Shown::default() };
    let schema = file::schema();
    hide(&mut value, &schema, &schema["$defs"]);
    Shown(value)
}

fn hide(value: &mut Value, schema: &Value, defs: &Value) {
    if is_secret(schema) {
        *value = Value::String(HIDDEN.to_owned());
        return;
    }
    match value {
        Value::Object(table) => {
            table.iter_mut().for_each(|(key, value)| hide(value, &property(schema, key, defs), defs))
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, &item_of(schema, defs), defs)),
        Value::String(text) => {
            if let Some(address) = without_user(text) {
                *text = address;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `…://USER:PASSWORD@HOST` without what stands before the host.
fn without_user(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let at = authority.rfind('@')?;
    Some(format!("{scheme}://{HIDDEN}{}", &rest[at..]))
}

fn is_secret(schema: &Value) -> bool {
    let named = |node: &Value| {
        node["$ref"].as_str().is_some_and(|path| path.ends_with("/Secret") || path.ends_with("/SecretFile"))
    };
    named(schema)
        || ["anyOf", "oneOf", "allOf"]
            .iter()
            .any(|kind| schema[*kind].as_array().is_some_and(|all| all.iter().any(named)))
}

/// Every form that a node may have.
fn forms(schema: &Value, defs: &Value) -> Vec<Value> {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return forms(&defs[name], defs);
    }
    match schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        Some(all) => all.iter().flat_map(|one| forms(one, defs)).collect(),
        None => vec![schema.clone()],
    }
}

fn property(schema: &Value, key: &str, defs: &Value) -> Value {
    let found = forms(schema, defs).into_iter().find_map(|form| form["properties"].get(key).cloned());
    found.unwrap_or_else(|| Value::Object(Map::new()))
}

fn item_of(schema: &Value, defs: &Value) -> Value {
    let found = forms(schema, defs).into_iter().find_map(|form| form.get("items").cloned());
    found.unwrap_or_else(|| Value::Object(Map::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_however_they_are_written() {
        let text = r#"
            [token]
            issuer = "https://api.example.com"
            [store]
            members = "postgres://wxgate:planted-1@db/wxgate"
            [[app]]
            appid = "wx0123456789abcdef"
            secret = "planted-2"
            push = { token = "planted-3", aes_key = { file = "planted-4" }, upstream = "orders" }
            [[internal.service]]
            name = "orders"
            token = "${PLANTED_5}"
        "#;
        let Shown(shown) = shown(text);
        let all = shown.to_string();
        assert!(!all.to_ascii_lowercase().contains("planted"), "{all}");
        assert_eq!(shown["app"][0]["appid"], "wx0123456789abcdef");
        assert_eq!(shown["app"][0]["push"]["upstream"], "orders");
        assert_eq!(shown["store"]["members"], "postgres://(hidden)@db/wxgate");
        assert_eq!(shown["token"]["issuer"], "https://api.example.com");
    }
}
