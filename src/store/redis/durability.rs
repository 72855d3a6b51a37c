//! Whether this Redis keeps what it has answered: asked at start, and said in the log where it does not.
//!
//! A setting that cannot be read (managed Redis often hides them) is said, too. A server that may throw keys away to make
//! room is refused: a logout that vanishes is a door that opens.

use std::collections::HashMap;

use redis::{FromRedisValue, Value};

use super::OpenError;
use super::link::Link;

/// Oldest version that has what the scripts and the sorted sets need.
const OLDEST: (u32, u32) = (6, 2);

/// Looks at every server that takes writes.
pub(super) async fn check(link: &Link, place: &str) -> Result<(), OpenError> {
    let unreachable =
        |source: crate::store::Error| OpenError::Unreachable { place: place.to_owned(), source: Box::new(source) };
    for info in link.everywhere(redis::cmd("INFO").arg("server")).await.map_err(unreachable)? {
        let info = text(info);
        if let Some(version) = field(&info, "redis_version").filter(|version| !is_new_enough(version)) {
            return Err(OpenError::TooOld { place: place.to_owned(), version: version.to_owned() });
        }
    }
    let replicas = link.everywhere(redis::cmd("INFO").arg("replication")).await.map_err(unreachable)?;
    let replicas =
        replicas.into_iter().map(text).any(|info| field(&info, "connected_slaves").is_some_and(|n| n != "0"));
    if replicas && link.address().wait == 0 {
        tracing::warn!(
            redis = place,
            "Redis has replicas that are not waited for: after a failover the last changes before it may be lost \
             (logouts among them); add ?wait=1 to `[store] sessions`"
        );
    }
    let settings = match link.everywhere(redis::cmd("CONFIG").arg("GET").arg("append*")).await {
        Ok(settings) => settings,
        Err(error) => {
            tracing::warn!(redis = place, %error, "the settings of Redis cannot be read: whether it keeps what it has answered is not known (appendonly yes, appendfsync always)");
            return Ok(());
        }
    };
    if let Some(weaker) = settings.into_iter().filter_map(map).find_map(|settings| weaker(&settings)) {
        tracing::warn!(
            redis = place,
            setting = weaker,
            "Redis is set to answer before a change is on disk: after a crash the last changes before it may be lost \
             (logouts among them); set `appendonly yes` and `appendfsync always`"
        );
    }
    let policies = link.everywhere(redis::cmd("CONFIG").arg("GET").arg("maxmemory*")).await.map_err(unreachable)?;
    for settings in policies.into_iter().filter_map(map) {
        let limited = settings.get("maxmemory").is_some_and(|limit| limit != "0");
        match settings.get("maxmemory-policy") {
            Some(policy) if limited && policy != "noeviction" => {
                return Err(OpenError::Evicts { place: place.to_owned(), policy: policy.clone() });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The first setting that promises less than "on disk before the answer".
fn weaker(settings: &HashMap<String, String>) -> Option<String> {
    [("appendonly", "yes"), ("appendfsync", "always")].into_iter().find_map(|(name, needed)| {
        let value = settings.get(name).map_or("?", String::as_str);
        (value != needed).then(|| format!("{name} {value}"))
    })
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= OLDEST
}

fn text(value: Value) -> String {
    String::from_redis_value(value).unwrap_or_default()
}

fn map(value: Value) -> Option<HashMap<String, String>> {
    HashMap::from_redis_value(value).ok()
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn what_is_weaker_than_always_is_named() {
        let set = |appendonly: &str, appendfsync: &str| {
            let pairs = [("appendonly", appendonly), ("appendfsync", appendfsync)];
            weaker(&pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
        };
        assert_eq!(set("yes", "always"), None);
        assert_eq!(set("yes", "everysec").as_deref(), Some("appendfsync everysec"));
        assert_eq!(set("no", "always").as_deref(), Some("appendonly no"));
        assert_eq!(weaker(&HashMap::new()).as_deref(), Some("appendonly ?"));
    }

    #[test]
    fn a_version_is_compared_by_its_numbers() {
        for (version, good) in [("6.0.16", false), ("6.2.0", true), ("7.0.15", true), ("10.1", true), ("", false)] {
            assert_eq!(is_new_enough(version), good, "{version}");
        }
    }
}
