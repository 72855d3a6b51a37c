//! The names of keys, and how values stand in them.
//!
//! A session and all its refresh tokens are one key, so that each of its changes is one step, also in a cluster. What
//! instances tell each other shares a hash tag (`{news}`), hence a slot.

use crate::clock::Timestamp;
use crate::ids::{AppId, OpenId, SessionId};
use crate::store::shared::Purpose;
use crate::store::{CodeHash, RefreshHash, SessionsOf};

/// Names with the prefix of the address.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// A hash: the session; its refresh tokens, each by its hash.
    pub(super) fn session(&self, id: &str) -> String {
        format!("{}:session:{id}", self.prefix)
    }

    /// A string: the session of a refresh token. Never changes; whether the token is good is in the session.
    pub(super) fn refresh(&self, hash: RefreshHash) -> String {
        format!("{}:refresh:{}", self.prefix, hex(&hash.0))
    }

    /// A sorted set: the sessions of a member or of an app, by their beginnings.
    pub(super) fn list(&self, of: &SessionsOf) -> String {
        match of {
            SessionsOf::Member(id) => format!("{}:member:{}", self.prefix, id.as_str()),
            SessionsOf::App(id) => format!("{}:app:{}", self.prefix, id.as_str()),
        }
    }

    /// A set: the apps that have a list.
    pub(super) fn apps(&self) -> String {
        format!("{}:apps", self.prefix)
    }

    /// A string: what a login code led to.
    pub(super) fn code(&self, hash: &CodeHash) -> String {
        format!("{}:code:{}", self.prefix, hex(&hash.0))
    }

    /// A hash: the sealed session_keys of a person.
    pub(super) fn session_keys(&self, appid: &AppId, openid: &OpenId) -> String {
        format!("{}:keys:{}:{}", self.prefix, appid.as_str(), openid.as_str())
    }

    /// What the names of all of those begin with.
    pub(super) fn all_session_keys(&self) -> String {
        format!("{}:keys:", self.prefix)
    }

    /// Whose sealed session_keys this is; `None` for a key of another kind.
    pub(super) fn person(&self, key: &str) -> Option<(AppId, OpenId)> {
        let (appid, openid) = key.strip_prefix(&self.all_session_keys())?.split_once(':')?;
        Some((AppId::parse(appid).ok()?, OpenId::parse(openid).ok()?))
    }

    /// A string: the sealed keys of the deployment.
    pub(super) fn key_bundle(&self) -> String {
        format!("{}:key-bundle", self.prefix)
    }

    /// A hash: the sealed access token of an app.
    pub(super) fn access_token(&self, appid: &AppId, line: &str) -> String {
        format!("{}:access:{}:{line}", self.prefix, appid.as_str())
    }

    /// A sorted set: revoked sessions, by when they may be forgotten.
    pub(super) fn revocations(&self) -> String {
        format!("{}:{{news}}:revoked", self.prefix)
    }

    /// A hash: epochs and changed roles.
    pub(super) fn notices(&self) -> String {
        format!("{}:{{news}}:notices", self.prefix)
    }

    /// A string: what instances share for a moment.
    pub(super) fn shared(&self, purpose: Purpose, name: &[u8]) -> String {
        format!("{}:shared:{}:{}", self.prefix, purpose.name(), hex(name))
    }

    /// A string: when a bucket of a limit is full again.
    pub(super) fn limit(&self, name: &[u8]) -> String {
        format!("{}:limit:{}", self.prefix, hex(name))
    }

    /// A stream: what instances tell each other.
    pub(super) fn news(&self) -> String {
        format!("{}:{{news}}:stream", self.prefix)
    }

    /// A string: the birth mark.
    pub(super) fn birth(&self) -> String {
        format!("{}:{{news}}:birth", self.prefix)
    }
}

/// A time as 15 digits, as scripts take it; times before 1970 count as 1970.
pub(super) fn digits(at: Timestamp) -> String {
    format!("{:015}", at.millis().max(0))
}

/// The time back.
pub(super) fn time(digits: &str) -> Option<Timestamp> {
    digits.parse().ok().map(Timestamp::from_millis)
}

/// How long, in milliseconds, a key is kept that is needed until `end`: at least one.
pub(super) fn life(now: Timestamp, end: Timestamp) -> i64 {
    end.millis().saturating_sub(now.millis()).clamp(1, 1 << 50)
}

/// A session id, as Redis gave it back.
pub(super) fn session_id(text: &str) -> Option<SessionId> {
    SessionId::parse(text).ok()
}

/// When a session was opened, as its id says (UUIDv7).
pub(super) fn begun(id: &SessionId) -> Option<Timestamp> {
    let id = uuid::Uuid::try_parse(id.as_str()).ok()?;
    i64::try_from(id.as_u128() >> 80).ok().map(Timestamp::from_millis)
}

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16_384;

/// The slot of a key in a cluster (Redis: "Cluster specification"): CRC-16 of what stands in the first braces, or of all.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let crc = hashed.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    });
    crc % SLOTS
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_the_one_that_the_specification_gives() {
        // The check value of the specification, and what CLUSTER KEYSLOT says of the others.
        assert_eq!(slot("123456789"), 0x31c3);
        assert_eq!((slot("foo"), slot("a{foo}b"), slot("{foo}{bar}")), (12182, 12182, 12182));
        assert_ne!(slot("{}foo"), slot("foo"));
    }
}
