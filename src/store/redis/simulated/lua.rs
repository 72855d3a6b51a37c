//! Scripts, by a Lua of the version that Redis has. Values go over by Redis's own rules.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Value};
use sha1::{Digest as _, Sha1};

use super::commands::Plain;
use super::defect::Defect;
use super::wire::Reply;

/// The scripts that were loaded, by SHA-1.
pub(super) struct Scripts {
    texts: HashMap<String, Vec<u8>>,
    defect: Option<Defect>,
}

impl Scripts {
    pub(super) fn new(defect: Option<Defect>) -> Self {
        Self { texts: HashMap::new(), defect }
    }

    /// Takes one up; its name.
    pub(super) fn load(&mut self, text: &[u8]) -> String {
        use std::fmt::Write as _;
        let name = Sha1::digest(text).iter().fold(String::new(), |mut name, byte| {
            let _ = write!(name, "{byte:02x}");
            name
        });
        let spoilt = self.defect.map(|defect| defect.spoil(&String::from_utf8_lossy(text)).into_bytes());
        self.texts.insert(name.clone(), spoilt.unwrap_or_else(|| text.to_owned()));
        name
    }

    pub(super) fn forget(&mut self) {
        self.texts.clear();
    }

    /// Runs one on `plain`.
    pub(super) fn run(&self, name: &[u8], keys: &[Vec<u8>], arguments: &[Vec<u8>], plain: &mut Plain) -> Reply {
        let Some(text) = std::str::from_utf8(name).ok().and_then(|name| self.texts.get(name)) else {
            return Reply::Fault("NOSCRIPT No matching script.".into());
        };
        run(text, keys, arguments, plain).unwrap_or_else(|fault| panic!("a script failed: {fault}"))
    }
}

thread_local! {
    /// One for each thread: making one takes longer than running a script.
    static LUA: Lua = Lua::new();
}

fn run(text: &[u8], keys: &[Vec<u8>], arguments: &[Vec<u8>], plain: &mut Plain) -> mlua::Result<Reply> {
    LUA.with(|lua| {
        let strings = |list: &[Vec<u8>]| -> mlua::Result<Value> {
            let strings: mlua::Result<Vec<_>> = list.iter().map(|item| lua.create_string(item)).collect();
            Ok(Value::Table(lua.create_sequence_from(strings?)?))
        };
        lua.globals().set("KEYS", strings(keys)?)?;
        lua.globals().set("ARGV", strings(arguments)?)?;
        let plain = Rc::new(RefCell::new(plain));
        lua.scope(|scope| {
            let call = scope.create_function(|lua, arguments: MultiValue| {
                let arguments: mlua::Result<Vec<Vec<u8>>> = arguments.iter().map(argument).collect();
                to_lua(lua, &plain.borrow_mut().run(&arguments?))
            })?;
            let redis = lua.create_table()?;
            redis.set("call", call)?;
            lua.globals().set("redis", redis)?;
            from_lua(&lua.load(text).eval::<Value>()?)
        })
    })
}

fn argument(value: &Value) -> mlua::Result<Vec<u8>> {
    match value {
        Value::String(text) => Ok(text.as_bytes().to_vec()),
        Value::Integer(n) => Ok(n.to_string().into_bytes()),
        Value::Number(n) => Ok(n.to_string().into_bytes()),
        other => Err(mlua::Error::runtime(format!("not an argument of a command: {other:?}"))),
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers are counts")]
fn to_lua(lua: &Lua, reply: &Reply) -> mlua::Result<Value> {
    Ok(match reply {
        Reply::Nil => Value::Boolean(false),
        Reply::Done => {
            let status = lua.create_table()?;
            status.set("ok", "OK")?;
            Value::Table(status)
        }
        Reply::Number(n) => Value::Number(*n as f64),
        Reply::Text(text) => Value::String(lua.create_string(text)?),
        Reply::List(items) => {
            let items: mlua::Result<Vec<_>> = items.iter().map(|item| to_lua(lua, item)).collect();
            Value::Table(lua.create_sequence_from(items?)?)
        }
        Reply::Fault(what) => return Err(mlua::Error::runtime(what)),
    })
}

#[expect(clippy::cast_possible_truncation, reason = "as Redis does it: the fraction is dropped")]
fn from_lua(value: &Value) -> mlua::Result<Reply> {
    Ok(match value {
        Value::Integer(n) => Reply::Number(*n),
        Value::Number(n) => Reply::Number(*n as i64),
        Value::String(text) => Reply::text(text.as_bytes().to_vec()),
        Value::Boolean(true) => Reply::Number(1),
        Value::Table(table) if table.contains_key("ok")? => Reply::Done,
        Value::Table(table) => {
            // Up to the first nil.
            let mut items = Vec::new();
            for n in 1.. {
                match table.raw_get::<Value>(n)? {
                    Value::Nil => break,
                    item => items.push(from_lua(&item)?),
                }
            }
            Reply::List(items)
        }
        Value::Nil | Value::Boolean(false) => Reply::Nil,
        other => return Err(mlua::Error::runtime(format!("not an answer: {other:?}"))),
    })
}
