//! What `gateway.toml` will be able to say and this version cannot do yet.
//!
//! A key of this table is refused rather than ignored: a limit that is written down and not enforced is worse than none.
//! Saying explicitly that something is off is always fine. Whoever builds one of these adds it to [`super::file`] and
//! takes its line out here.

use toml::de::DeValue;

/// One key, without the indices of lists, and the value that means "off", as written in TOML.
struct Planned {
    key: &'static str,
    off: Option<&'static str>,
}

const fn planned(key: &'static str) -> Planned {
    Planned { key, off: None }
}

const fn planned_off(key: &'static str, off: &'static str) -> Planned {
    Planned { key, off: Some(off) }
}

const KEYS: &[Planned] = &[planned_off("token.format", "\"jwt\""), planned("token.master_key")];

/// Values, by how they start, of keys that otherwise exist; and what to write instead.
const VALUES: &[(&str, &str, &str)] =
    &[("token.keys", "store", "write a folder, such as \"data/keys\" (a folder of that name is \"./store\")")];

/// What is wrong with `key` (without indices) holding `value`; `None` when it says "off".
pub(super) enum Verdict {
    /// Not a planned key.
    Unknown,
    /// A planned key that is switched off explicitly.
    Off,
    /// A planned key in use: what is wrong.
    Refused(String),
}

/// Judges a key that [`super::file`] does not know.
pub(super) fn key(key: &str, value: &DeValue<'_>) -> Verdict {
    let Some(planned) = KEYS.iter().find(|planned| planned.key == key) else {
        return Verdict::Unknown;
    };
    match planned.off {
        Some(off) if says(value, off) => Verdict::Off,
        Some(off) => Verdict::Refused(format!("{UNAVAILABLE}; remove it or write {off}")),
        None => Verdict::Refused(format!("{UNAVAILABLE}; remove it")),
    }
}

/// Whether planned keys stand in a table `key` that [`super::file`] does not know.
pub(super) fn is_table(key: &str) -> bool {
    KEYS.iter().any(|planned| planned.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// What is wrong with `text` as the value of a known key, when it asks for something that is not there yet.
pub(super) fn value(key: &str, text: &str) -> Option<String> {
    let (_, start, write) = VALUES.iter().find(|(planned, start, _)| {
        *planned == key && if start.ends_with(':') { text.starts_with(start) } else { text == *start }
    })?;
    Some(format!("\"{start}\" {UNAVAILABLE}; {write}"))
}

const UNAVAILABLE: &str = "is not available in this version of wxgate";

fn says(value: &DeValue<'_>, off: &str) -> bool {
    match value {
        DeValue::String(text) => off.trim_matches('"') == text.as_ref() && off.starts_with('"'),
        DeValue::Boolean(value) => off == if *value { "true" } else { "false" },
        DeValue::Integer(number) => number.as_str() == off,
        DeValue::Array(items) => items.is_empty() && off == "[]",
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::schema;
    use super::*;

    #[test]
    fn nothing_is_both_planned_and_available() {
        let schema = schema();
        for planned in KEYS {
            let (table, name) = planned.key.split_once('.').unwrap();
            let table = &schema["properties"][table];
            let def = table["$ref"].as_str().or(table["items"]["$ref"].as_str());
            let def = def.map(|def| &schema["$defs"][def.rsplit('/').next().unwrap()]);
            assert!(def.is_none_or(|def| def["properties"][name].is_null()), "{}", planned.key);
        }
    }
}
