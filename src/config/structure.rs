//! Whether a text has the shape that [`super::file`] describes: known keys, right types, named choices.
//!
//! It walks the parsed text beside the JSON Schema, reports every fault with its place, puts environment variables in,
//! and takes out what is faulty, so that the rest can be read into [`super::file::File`] and checked as well. A key that
//! was taken out does not count as missing afterwards.

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::report::Report;
use super::secret::{Environment, expand};

/// Walks `table` beside `schema`, and leaves in it what has the right shape.
pub(super) fn prune(table: &mut DeTable<'_>, schema: &Value, env: &Environment, report: &mut Report<'_>) {
    let root = Schema { node: schema, defs: &schema["$defs"] };
    Walk { env, report }.table(table, root, "");
}

/// A node of the schema, and where its references lead.
#[derive(Clone, Copy)]
struct Schema<'s> {
    node: &'s Value,
    defs: &'s Value,
}

impl<'s> Schema<'s> {
    fn at(self, node: &'s Value) -> Self {
        Self { node, defs: self.defs }
    }

    /// The alternatives that a value here may satisfy, references followed.
    fn branches(self) -> Vec<Self> {
        if let Some(name) = self.node["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            return self.at(&self.defs[name]).branches();
        }
        match self.node["anyOf"].as_array().or(self.node["oneOf"].as_array()) {
            Some(branches) => branches.iter().flat_map(|branch| self.at(branch).branches()).collect(),
            None => vec![self],
        }
    }

    fn is(self, kind: &str) -> bool {
        self.node["type"] == kind
    }

    /// The words that a string here may be; empty when any text will do.
    fn words(self) -> impl Iterator<Item = &'s str> {
        let listed = self.node["enum"].as_array().into_iter().flatten();
        listed.chain(self.node.get("const")).filter_map(Value::as_str)
    }

    fn properties(self) -> Option<&'s Map<String, Value>> {
        self.node["properties"].as_object()
    }

    /// An example of what to write here, in TOML.
    fn example(self) -> Option<String> {
        let own = self.node["examples"].get(0);
        let referred = self.node["$ref"].as_str().and_then(|path| path.rsplit('/').next());
        own.or_else(|| self.defs[referred?]["examples"].get(0)).map(Value::to_string)
    }
}

struct Walk<'w, 't> {
    env: &'w Environment,
    report: &'w mut Report<'t>,
}

impl Walk<'_, '_> {
    fn table(&mut self, table: &mut DeTable<'_>, schema: Schema<'_>, at: &str) {
        self.missing(table, schema, at);
        let mut faulty = Vec::new();
        for (key, value) in table.iter_mut() {
            let path = join(at, key.get_ref());
            self.report.place(&path, key.span().start, value.span());
            let sound = match schema.properties().and_then(|known| known.get(key.get_ref().as_ref())) {
                Some(known) => self.value(value, schema.at(known), &path),
                None => {
                    self.unknown(schema, key.get_ref(), &path);
                    false
                }
            };
            if !sound {
                faulty.push(key.get_ref().clone().into_owned());
            }
        }
        for key in faulty {
            table.remove(key.as_str());
        }
    }

    /// Reports what the schema requires and the table does not have.
    fn missing(&mut self, table: &DeTable<'_>, schema: Schema<'_>, at: &str) {
        for key in schema.node["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if table.contains_key(key) {
                continue;
            }
            let known = schema.at(&schema.node["properties"][key]);
            let what = match known.branches().first() {
                Some(branch) if branch.is("array") && self.item(*branch).is_some() => {
                    format!("is missing; write [[{key}]] and its keys below, at least once")
                }
                Some(branch) if branch.is("object") => {
                    format!("the table is missing; write [{key}] and its keys below")
                }
                Some(_) | None => match known.example() {
                    Some(example) => format!("is missing; write for example {key} = {example}"),
                    None => "is missing".to_owned(),
                },
            };
            self.report.fault(&join(at, key), what);
        }
    }

    /// Reports a key that the schema does not know.
    fn unknown(&mut self, schema: Schema<'_>, key: &str, path: &str) {
        let known: Vec<&str> = schema.properties().into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let what = match (closest(key, &known), known.as_slice()) {
            (Some(close), _) => format!("unknown key; did you mean `{close}`?"),
            (None, []) => "unknown key; remove it".to_owned(),
            (None, known) => format!("unknown key; known here are {}", known.join(", ")),
        };
        self.report.fault(path, what);
    }

    /// Checks one value; false when it has to go.
    fn value(&mut self, value: &mut Spanned<DeValue<'_>>, schema: Schema<'_>, at: &str) -> bool {
        let branches = schema.branches();
        let of = |kind: &str| branches.iter().copied().find(|branch| branch.is(kind));
        match value.get_mut() {
            DeValue::String(text) if branches.iter().any(|branch| branch.is("string")) => {
                let expanded = match expand(text, self.env) {
                    Ok(expanded) => expanded.into_owned(),
                    Err(faults) => {
                        faults.into_iter().for_each(|what| self.report.fault(at, what));
                        return false;
                    }
                };
                *text = expanded.into();
                self.text(text, &branches, at)
            }
            DeValue::Integer(number) if of("integer").is_some() => {
                of("integer").is_some_and(|b| self.integer(number, b, at))
            }
            DeValue::Float(number) if of("number").is_some() => {
                let value = number.as_str().replace('_', "").parse().ok();
                of("number").is_some_and(|b| self.number(value, b, at))
            }
            DeValue::Integer(number) if of("number").is_some() => {
                let value = number.as_str().parse().ok().filter(|_| number.radix() == 10);
                of("number").is_some_and(|b| self.number(value, b, at))
            }
            DeValue::Boolean(_) if of("boolean").is_some() => true,
            DeValue::Array(items) if of("array").is_some() => {
                let Some(branch) = of("array") else { return false };
                let item = branch.at(&branch.node["items"]);
                let tables = self.item(branch).is_some();
                let least = branch.node["minItems"].as_u64().unwrap_or(0);
                if (items.len() as u64) < least {
                    self.report.fault(at, "is empty; write at least one");
                    return false;
                }
                let mut sound = true;
                for (n, value) in items.iter_mut().enumerate() {
                    let at = format!("{at}[{n}]");
                    self.report.place(&at, value.span().start, value.span());
                    if !self.value(value, item, &at) {
                        sound = false;
                        if tables {
                            // An empty table keeps the place, so that the ones after it keep their numbers.
                            *value.get_mut() = DeValue::Table(DeTable::new());
                        }
                    }
                }
                sound || tables
            }
            DeValue::Table(table) if of("object").is_some() => {
                if let Some(branch) = of("object") {
                    self.table(table, branch, at);
                }
                true
            }
            other => {
                let what = self.mistyped(other, schema, &branches, at);
                self.report.fault(at, what);
                false
            }
        }
    }

    fn text(&mut self, text: &str, branches: &[Schema<'_>], at: &str) -> bool {
        let words: Vec<&str> = branches.iter().flat_map(|branch| branch.words()).collect();
        if words.is_empty() || words.contains(&text) {
            return true;
        }
        let all = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let what = match closest(text, &words) {
            Some(close) => format!("is none of {all}; did you mean \"{close}\"?"),
            None => format!("is none of {all}; write one of them"),
        };
        self.report.fault(at, what);
        false
    }

    fn integer(&mut self, number: &DeInteger<'_>, schema: Schema<'_>, at: &str) -> bool {
        let (least, most) = (schema.node["minimum"].as_i64(), schema.node["maximum"].as_i64());
        let (least, most) = (least.unwrap_or(i64::MIN), most.unwrap_or(i64::MAX));
        let value = i64::from_str_radix(number.as_str(), number.radix()).ok();
        if value.is_some_and(|value| (least..=most).contains(&value)) {
            return true;
        }
        let range = if most == i64::MAX { format!("{least} or more") } else { format!("{least} to {most}") };
        self.report.fault(at, format!("is out of range; write a number of {range}"));
        false
    }

    fn number(&mut self, value: Option<f64>, schema: Schema<'_>, at: &str) -> bool {
        let (least, most) = (schema.node["minimum"].as_f64(), schema.node["maximum"].as_f64());
        let (least, most) = (least.unwrap_or(f64::MIN), most.unwrap_or(f64::MAX));
        if value.is_some_and(|value| (least..=most).contains(&value)) {
            return true;
        }
        self.report.fault(at, format!("is out of range; write a number from {least} to {most}"));
        false
    }

    fn mistyped(&self, got: &DeValue<'_>, schema: Schema<'_>, branches: &[Schema<'_>], at: &str) -> String {
        let got = name(got.type_str());
        let key = at.rsplit('.').next().unwrap_or(at);
        let list = branches.iter().copied().find(|branch| branch.is("array"));
        if list.is_some_and(|list| self.item(list).is_some()) {
            return format!("must be a list of tables, got {got}; write [[{key}]] with two brackets");
        }
        if branches.iter().all(|branch| branch.is("object")) {
            return match key.split_once('[') {
                Some((list, _)) => format!("must be a table, got {got}; write [[{list}]] and its keys below"),
                None if at.contains('[') => format!("must be a table, got {got}; write {key} = {{ … }}"),
                None => format!("must be a table, got {got}; write [{key}] and its keys below"),
            };
        }
        let mut wanted: Vec<&str> =
            branches.iter().filter_map(|branch| branch.node["type"].as_str()).map(name).collect();
        wanted.dedup();
        let wanted = wanted.join(" or ");
        let word = || branches.iter().find_map(|branch| branch.words().next()).map(|word| format!("\"{word}\""));
        match schema.example().or_else(word) {
            Some(example) => format!("must be {wanted}, got {got}; write for example {example}"),
            None if wanted == name("boolean") => format!("must be {wanted}, got {got}; write true or false"),
            None => format!("must be {wanted}, got {got}"),
        }
    }

    /// The schema of a list's items, when they are tables and nothing else.
    fn item<'s>(&self, list: Schema<'s>) -> Option<Schema<'s>> {
        let items = list.at(&list.node["items"]).branches();
        items.first().copied().filter(|_| items.iter().all(|item| item.is("object")))
    }
}

fn name(kind: &str) -> &'static str {
    match kind {
        "string" => "a string",
        "integer" => "an integer",
        "float" => "a float",
        "number" => "a number",
        "boolean" => "a boolean",
        "datetime" => "a date",
        "array" => "a list",
        _ => "a table",
    }
}

/// `a.b`, with quotes around what is not a bare key, and nothing that could break a line.
fn join(table: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let key = match bare {
        true => key.to_owned(),
        false => format!("{key:?}"),
    };
    if table.is_empty() { key } else { format!("{table}.{key}") }
}

/// The word that somebody meant who wrote `word`, if one is near enough.
pub(super) fn closest<'w>(word: &str, words: &[&'w str]) -> Option<&'w str> {
    let distance = |known: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &known.to_lowercase());
    let near = |known: &str| distance(known) <= (known.len() / 3).max(1);
    // The distance is quadratic in the length; nobody mistypes a key into a novel.
    let candidates = words.iter().copied().filter(|known| word.len() <= 2 * known.len() + 8 && near(known));
    candidates.min_by_key(|known| distance(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_the_one_that_was_meant() {
        let words = ["timeout", "idle_timeout", "auth", "max_body"];
        assert_eq!(closest("time_out", &words), Some("timeout"));
        assert_eq!(closest("max-body", &words), Some("max_body"));
        assert_eq!(closest("AUTH", &words), Some("auth"));
        assert_eq!(closest("colour", &words), None);
        assert_eq!(closest(&"a".repeat(100_000), &words), None);
    }

    #[test]
    fn keys_are_quoted_when_they_are_not_bare() {
        assert_eq!(join("", "server"), "server");
        assert_eq!(join("route[2]", "a b\n"), r#"route[2]."a b\n""#);
    }
}
