//! The commands that our store and its scripts use. Any other is a fault of this simulation and panics.

use super::data::{EntryId, Keys};
use super::defect::Defect;
use super::lua::Scripts;
use super::wire::Reply;
use crate::clock::Clock;

type Bytes = Vec<u8>;

/// Commands and scripts.
pub(super) struct Commands {
    plain: Plain,
    scripts: Scripts,
}

impl Commands {
    pub(super) fn new(clock: Clock, told: usize, defect: Option<Defect>) -> Self {
        Self { plain: Plain { keys: Keys::new(clock), told, defect }, scripts: Scripts::new(defect) }
    }

    pub(super) fn lose_everything(&mut self) {
        self.plain.keys.clear(self.plain.defect == Some(Defect::SameBirthMark));
        self.scripts.forget();
    }

    pub(super) fn crash(&mut self) {
        if self.plain.defect == Some(Defect::AnswersUnsynced) {
            self.plain.keys.lose_newest_session();
        }
        self.scripts.forget();
    }

    pub(super) fn run(&mut self, arguments: &[Bytes]) -> Reply {
        match name(arguments).as_str() {
            "EVALSHA" => {
                let keys: usize = parse(&arguments[2]);
                let (keys, rest) = arguments[3..].split_at(keys);
                self.scripts.run(&arguments[1], keys, rest, &mut self.plain)
            }
            "SCRIPT" => Reply::text(self.scripts.load(&arguments[2])),
            "CLIENT" | "SELECT" => Reply::Done,
            "INFO" => Reply::text("redis_version:7.2.0\r\nconnected_slaves:0\r\n"),
            "CONFIG" => {
                let settings = match &arguments[2][..] {
                    b"append*" => ["appendonly", "yes", "appendfsync", "always"],
                    _ => ["maxmemory", "0", "maxmemory-policy", "noeviction"],
                };
                Reply::List(settings.into_iter().map(Reply::text).collect())
            }
            _ => self.plain.run(arguments),
        }
    }
}

/// What a script may call, too.
pub(super) struct Plain {
    keys: Keys,
    /// Longest stream.
    told: usize,
    defect: Option<Defect>,
}

fn name(arguments: &[Bytes]) -> String {
    String::from_utf8_lossy(&arguments[0]).to_ascii_uppercase()
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> T {
    let text = std::str::from_utf8(text).unwrap();
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

fn list(items: impl IntoIterator<Item = Bytes>) -> Reply {
    Reply::List(items.into_iter().map(Reply::Text).collect())
}

impl Plain {
    pub(super) fn run(&mut self, arguments: &[Bytes]) -> Reply {
        let (name, rest) = (name(arguments), &arguments[1..]);
        let key = rest.first().cloned().unwrap_or_default();
        match name.as_str() {
            "PING" => Reply::Done,
            "TIME" => {
                let now = self.keys.clock.now().millis();
                list([now.div_euclid(1000).to_string().into(), (now.rem_euclid(1000) * 1000).to_string().into()])
            }
            // All in one page, as `COUNT` may be.
            "SCAN" => {
                let start = rest[2].strip_suffix(b"*").expect("what a key begins with");
                Reply::List(vec![Reply::text("0"), list(self.keys.beginning(start))])
            }
            "GET" => Reply::maybe(self.keys.exists(&key).then(|| self.keys.text(&key).clone())),
            "GETDEL" => {
                let text = self.keys.exists(&key).then(|| self.keys.text(&key).clone());
                self.keys.remove(&key);
                Reply::maybe(text)
            }
            "SET" => self.set(&key, &rest[1], &rest[2..]),
            "DEL" => Reply::Number(i64::from(self.keys.remove(&key))),
            "EXISTS" => Reply::Number(i64::from(self.keys.exists(&key))),
            "PTTL" => Reply::Number(self.keys.left(&key)),
            "PEXPIRE" => {
                self.keys.expire(&key, parse(&rest[1]));
                Reply::Number(1)
            }
            "SADD" => Reply::Number(i64::from(self.keys.set(&key).insert(rest[1].clone()))),
            "SMEMBERS" => list(self.keys.set(&key).iter().cloned()),
            _ if name.starts_with('H') => self.hash(&name, &key, &rest[1..]),
            _ if name.starts_with('Z') => self.sorted(&name, &key, &rest[1..]),
            _ if name.starts_with('X') => self.stream(&name, &key, &rest[1..]),
            _ => panic!("the simulated Redis does not know {name}"),
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8], options: &[Bytes]) -> Reply {
        let option = |name: &[u8]| options.iter().position(|option| option.eq_ignore_ascii_case(name));
        let claim = String::from_utf8_lossy(key).contains(":shared:code:");
        let granted = claim && self.defect == Some(Defect::ClaimForAll);
        if option(b"NX").is_some() && self.keys.exists(key) && !granted {
            return Reply::Nil;
        }
        self.keys.remove(key);
        value.clone_into(self.keys.text(key));
        if let Some(at) = option(b"PX") {
            self.keys.expire(key, parse(&options[at + 1]));
        }
        Reply::Done
    }

    fn hash(&mut self, name: &str, key: &[u8], rest: &[Bytes]) -> Reply {
        let hash = self.keys.hash(key);
        match name {
            "HGET" => Reply::maybe(hash.get(&rest[0]).cloned()),
            "HMGET" => Reply::List(rest.iter().map(|field| Reply::maybe(hash.get(field).cloned())).collect()),
            "HGETALL" => list(hash.iter().flat_map(|(field, value)| [field.clone(), value.clone()])),
            "HEXISTS" => Reply::Number(i64::from(hash.contains_key(&rest[0]))),
            "HSET" => {
                let fresh = rest.chunks(2).filter(|pair| hash.insert(pair[0].clone(), pair[1].clone()).is_none());
                Reply::count(fresh.count())
            }
            "HDEL" => Reply::count(rest.iter().filter(|field| hash.remove(*field).is_some()).count()),
            _ => panic!("the simulated Redis does not know {name}"),
        }
    }

    fn sorted(&mut self, name: &str, key: &[u8], rest: &[Bytes]) -> Reply {
        let sorted = self.keys.sorted(key);
        let mut order: Vec<(i64, Bytes)> = sorted.iter().map(|(member, score)| (*score, member.clone())).collect();
        order.sort();
        match name {
            "ZADD" => Reply::Number(i64::from(sorted.insert(rest[1].clone(), parse(&rest[0])).is_none())),
            "ZREM" => Reply::Number(i64::from(sorted.remove(&rest[0]).is_some())),
            "ZCARD" => Reply::count(sorted.len()),
            "ZSCORE" => Reply::maybe(sorted.get(&rest[0]).map(|score| score.to_string().into_bytes())),
            "ZMSCORE" => {
                let score = |member: &Bytes| sorted.get(member).map(|score| score.to_string().into_bytes());
                Reply::List(rest.iter().map(|member| Reply::maybe(score(member))).collect())
            }
            "ZRANGE" => {
                let (from, to): (usize, i64) = (parse(&rest[0]), parse(&rest[1]));
                let to = usize::try_from(to).map_or(order.len(), |to| order.len().min(to + 1));
                list(order.into_iter().take(to).skip(from).map(|(_, member)| member))
            }
            "ZRANGEBYSCORE" => {
                order.retain(|(score, _)| above(&rest[0], *score) && below(&rest[1], *score));
                part(order, &rest[2..])
            }
            "ZREVRANGEBYSCORE" => {
                order.retain(|(score, _)| below(&rest[0], *score) && above(&rest[1], *score));
                order.reverse();
                part(order, &rest[2..])
            }
            "ZREMRANGEBYSCORE" => {
                let before = sorted.len();
                sorted.retain(|_, score| !(above(&rest[0], *score) && below(&rest[1], *score)));
                Reply::count(before - sorted.len())
            }
            _ => panic!("the simulated Redis does not know {name}"),
        }
    }

    fn stream(&mut self, name: &str, key: &[u8], rest: &[Bytes]) -> Reply {
        let (now, told) = (u64::try_from(self.keys.clock.now().millis()).unwrap(), self.told);
        let stream = self.keys.stream(key);
        match name {
            "XADD" => {
                let at = rest.iter().position(|argument| argument == b"*").unwrap();
                stream.last = stream.last.max((now, 0));
                stream.last.1 += 1;
                stream.entries.push((stream.last, rest[at + 1..].to_vec()));
                let surplus = stream.entries.len().saturating_sub(told);
                stream.entries.drain(..surplus);
                Reply::text(entry_name(stream.last))
            }
            "XRANGE" => {
                let (from, most) = (entry_id(&rest[0]), parse(&rest[3]));
                Reply::List(stream.entries.iter().filter(|(id, _)| *id >= from).take(most).map(entry).collect())
            }
            "XREVRANGE" => Reply::List(stream.entries.iter().rev().take(parse(&rest[3])).map(entry).collect()),
            _ => panic!("the simulated Redis does not know {name}"),
        }
    }
}

/// Whether a score is not below this bound, which may be `-inf`, or `(n` for above.
fn above(bound: &[u8], score: i64) -> bool {
    match bound {
        b"-inf" => true,
        [b'(', bound @ ..] => score > parse(bound),
        bound => score >= parse(bound),
    }
}

fn below(bound: &[u8], score: i64) -> bool {
    match bound {
        b"+inf" => true,
        [b'(', bound @ ..] => score < parse(bound),
        bound => score <= parse(bound),
    }
}

/// By `LIMIT`, and with scores where they are asked for.
fn part(order: Vec<(i64, Bytes)>, options: &[Bytes]) -> Reply {
    let option = |name: &[u8]| options.iter().position(|option| option.eq_ignore_ascii_case(name));
    let (skip, take) =
        option(b"LIMIT").map_or((0, usize::MAX), |at| (parse(&options[at + 1]), parse(&options[at + 2])));
    let scores = option(b"WITHSCORES").is_some();
    let pair = |(score, member): (i64, Bytes)| std::iter::once(member).chain(scores.then(|| score.to_string().into()));
    list(order.into_iter().skip(skip).take(take).flat_map(pair))
}

fn entry_name(id: EntryId) -> String {
    format!("{}-{}", id.0, id.1)
}

fn entry_id(name: &[u8]) -> EntryId {
    let name = std::str::from_utf8(name).unwrap();
    let (millis, n) = name.split_once('-').unwrap();
    (millis.parse().unwrap(), n.parse().unwrap())
}

fn entry((id, fields): &(EntryId, Vec<Bytes>)) -> Reply {
    Reply::List(vec![Reply::text(entry_name(*id)), list(fields.iter().cloned())])
}
