//! What `gateway.toml` will be able to say and this version cannot do yet.
//!
//! A key of this table is refused rather than ignored: a limit that is written down and not enforced is worse than none.
//! Whoever builds one of these adds it to [`super::file`] and takes its line out here.

/// Keys, without the indices of lists.
const KEYS: &[&str] = &["token.master_key"];

/// Values, by how they start, of keys that otherwise exist; and what to write instead.
const VALUES: &[(&str, &str, &str)] =
    &[("token.keys", "store", "write a folder, such as \"data/keys\" (a folder of that name is \"./store\")")];

/// What is wrong with a key that [`super::file`] does not know (without indices), if it is one of these.
pub(super) fn key(key: &str) -> Option<String> {
    KEYS.contains(&key).then(|| format!("{UNAVAILABLE}; remove it"))
}

/// Whether planned keys stand in a table `key` that [`super::file`] does not know.
pub(super) fn is_table(key: &str) -> bool {
    KEYS.iter().any(|planned| planned.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// What is wrong with `text` as the value of a known key, when it asks for something that is not there yet.
pub(super) fn value(key: &str, text: &str) -> Option<String> {
    let (_, start, write) = VALUES.iter().find(|(planned, start, _)| {
        *planned == key && if start.ends_with(':') { text.starts_with(start) } else { text == *start }
    })?;
    Some(format!("\"{start}\" {UNAVAILABLE}; {write}"))
}

const UNAVAILABLE: &str = "is not available in this version of wxgate";

#[cfg(test)]
mod tests {
    use super::super::file::schema;
    use super::*;

    #[test]
    fn nothing_is_both_planned_and_available() {
        let schema = schema();
        for planned in KEYS {
            let (table, name) = planned.split_once('.').unwrap();
            let table = &schema["properties"][table];
            let def = table["$ref"].as_str().or(table["items"]["$ref"].as_str());
            let def = def.map(|def| &schema["$defs"][def.rsplit('/').next().unwrap()]);
            assert!(def.is_none_or(|def| def["properties"][name].is_null()), "{planned}");
        }
    }
}
