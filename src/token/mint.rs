//! From a [`Grant`] to an access token: signed, in the shape of RFC 9068, or a handle where the configuration says so.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::handle::{self, Handles};
use super::keys::KeyRing;
use super::sign::{self, sign};
use super::{ACCESS_TYP, Claims, Grant, MAX_TOKEN, is_name, is_reserved_claim};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Algorithm};
use crate::ids::{AppId, MemberId, OpenId, Secret, SessionId, UnionId, UserId};

/// Why no token was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The session's absolute end is now or past.
    #[error("the session is over")]
    SessionOver,
    /// A role that could not stand in a header: the token would not verify.
    #[error("a role is not visible ASCII without comma, of 1 to 128 characters")]
    Role,
    /// So many roles that the token would be longer than is looked at.
    #[error("the token would be longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// No key, or it could not sign.
    #[error(transparent)]
    Unsigned(#[from] sign::Error),
    /// No handle could be issued.
    #[error(transparent)]
    Unissued(#[from] handle::Unissued),
}

/// A new access token.
#[derive(Debug, Clone)]
pub struct Minted {
    /// The token, for the client alone.
    pub token: Secret<String>,
    /// What it says.
    pub claims: Claims,
    /// How long it is good for, whole seconds.
    pub expires_in: Duration,
}

/// Mints access tokens with the active key of the configured algorithm, or as handles.
#[derive(Debug, Clone)]
pub struct Minter {
    ring: Arc<KeyRing>,
    algorithm: Algorithm,
    issuer: Box<str>,
    audience: Vec<String>,
    access_ttl: Duration,
    clock: Clock,
    /// When handles are issued in place of JWTs.
    handles: Option<Arc<Handles>>,
}

/// The claims in the order in which they are written.
#[derive(Serialize)]
struct Written<'a> {
    iss: &'a str,
    aud: Audience<'a>,
    sub: &'a MemberId,
    client_id: &'a AppId,
    appid: &'a AppId,
    openid: &'a OpenId,
    #[serde(skip_serializing_if = "Option::is_none")]
    unionid: Option<&'a UnionId>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    roles: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a UserId>,
    sid: &'a SessionId,
    jti: &'a str,
    auth_time: i64,
    iat: i64,
    exp: i64,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Audience<'a> {
    One(&'a str),
    Several(&'a [String]),
}

impl Minter {
    /// Signs with the active key of `ring` for the algorithm of `section`.
    pub fn new(ring: Arc<KeyRing>, section: &config::Token, clock: Clock) -> Self {
        Self {
            ring,
            algorithm: section.algorithm,
            issuer: section.issuer.as_str().into(),
            audience: section.audience.clone(),
            access_ttl: section.access_ttl,
            clock,
            handles: None,
        }
    }

    /// From now on `handles` issues in place of the keys.
    #[must_use]
    pub fn issuing(mut self, handles: Arc<Handles>) -> Self {
        self.handles = Some(handles);
        self
    }

    /// A token that says what `grant` says, good for `access_ttl` and never past the end of the session.
    ///
    /// # Errors
    /// [`Error`]; the ones a caller can meet are [`Error::SessionOver`] and, with roles from outside, [`Error::Role`] and
    /// [`Error::TooLong`].
    pub fn mint(&self, grant: &Grant) -> Result<Minted, Error> {
        let now = Timestamp::from_secs(self.clock.now().secs());
        let exp = Timestamp::from_secs(now.plus(self.access_ttl).min(grant.session_expires_at).secs());
        if exp <= now {
            return Err(Error::SessionOver);
        }
        if !grant.roles.iter().all(|role| is_name(role)) {
            return Err(Error::Role);
        }
        let (token, jti) = match &self.handles {
            Some(handles) => {
                let (token, jti) = handles.issue(grant, now, exp)?;
                (token, jti.to_string())
            }
            None => self.sign(grant, now, exp)?,
        };
        let claims = Claims {
            member_id: grant.member_id.clone(),
            session_id: grant.session_id.clone(),
            appid: grant.appid.clone(),
            openid: grant.openid.clone(),
            unionid: grant.unionid.clone(),
            roles: grant.roles.clone(),
            user_id: grant.user_id.clone(),
            jti: Some(jti),
            auth_time: Some(Timestamp::from_secs(grant.auth_time.secs())),
            issued_at: now,
            expires_at: exp,
        };
        Ok(Minted { token, claims, expires_in: exp.since(now) })
    }

    fn sign(&self, grant: &Grant, now: Timestamp, exp: Timestamp) -> Result<(Secret<String>, String), Error> {
        // They were held against the same list when they came in; by an older build perhaps, with a shorter one.
        let mut others: Map<String, Value> = serde_json::from_str(&grant.claims).unwrap_or_default();
        others.retain(|name, _| !is_reserved_claim(name));
        let jti = uuid::Uuid::now_v7().to_string();
        let written = Written {
            iss: &self.issuer,
            aud: match self.audience.as_slice() {
                [one] => Audience::One(one),
                several => Audience::Several(several),
            },
            sub: &grant.member_id,
            client_id: &grant.appid,
            appid: &grant.appid,
            openid: &grant.openid,
            unionid: grant.unionid.as_ref(),
            roles: &grant.roles,
            user_id: grant.user_id.as_ref(),
            sid: &grant.session_id,
            jti: &jti,
            auth_time: grant.auth_time.secs(),
            iat: now.secs(),
            exp: exp.secs(),
            others,
        };
        let token = sign(&self.ring, self.algorithm, ACCESS_TYP, &written)?;
        if token.expose().len() > MAX_TOKEN {
            return Err(Error::TooLong);
        }
        Ok((token, jti))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::super::fixture::{grant, kid, ring, section};
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_900);

    fn minter(section: &config::Token) -> Minter {
        Minter::new(ring(), section, Clock::manual(NOW))
    }

    fn part(token: &Minted, n: usize) -> Value {
        let part = token.token.expose().split('.').nth(n).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn a_token_says_what_the_contract_says_and_nothing_else() {
        let minted = minter(&section(Algorithm::Es256)).mint(&grant(NOW)).unwrap();
        assert_eq!(part(&minted, 0), json!({"typ": "at+jwt", "alg": "ES256", "kid": kid(Algorithm::Es256)}));
        let expected = json!({
            "iss": "https://auth.example.test", "aud": "wxgate", "sub": "member-1", "client_id": "wx0123456789abcdef",
            "appid": "wx0123456789abcdef", "openid": "oX-alice_0123456789012345678", "unionid": "oU-alice",
            "roles": ["admin", "shop:read"], "sid": "session-1", "jti": minted.claims.jti, "auth_time": 1_700_000_000,
            "iat": 1_700_000_000, "exp": 1_700_007_200,
        });
        assert_eq!(part(&minted, 1), expected);
        assert!(!format!("{minted:?}").contains(minted.token.expose()));
    }

    #[test]
    fn what_is_unknown_is_left_out_and_several_audiences_are_a_list() {
        let mut section = section(Algorithm::EdDsa);
        section.audience.push("other".into());
        let grant = Grant { unionid: None, roles: Vec::new(), ..grant(NOW) };
        let claims = part(&minter(&section).mint(&grant).unwrap(), 1);
        assert_eq!(claims["aud"], json!(["wxgate", "other"]));
        assert!(claims.get("unionid").is_none() && claims.get("roles").is_none());
    }

    #[test]
    fn claims_of_others_stand_beside_ours_and_never_in_their_place() {
        let claims = r#"{"tier":"gold","sub":"admin","exp":9999999999,"roles":["root"]}"#.to_owned();
        let user_id = UserId::parse("u-17").ok();
        let minted = minter(&section(Algorithm::Es256)).mint(&Grant { claims, user_id, ..grant(NOW) }).unwrap();
        let claims = part(&minted, 1);
        assert_eq!((&claims["tier"], &claims["user_id"]), (&json!("gold"), &json!("u-17")));
        assert_eq!((&claims["sub"], &claims["exp"]), (&json!("member-1"), &json!(1_700_007_200)));
        assert_eq!(claims["roles"], json!(["admin", "shop:read"]));
    }

    #[test]
    fn a_token_never_outlives_its_session() {
        let minter = minter(&section(Algorithm::Hs256));
        let until = |millis| Grant { session_expires_at: Timestamp::from_millis(millis), ..grant(NOW) };
        let minted = minter.mint(&until(1_700_000_060_999)).unwrap();
        assert_eq!((minted.claims.expires_at.secs(), minted.expires_in.as_secs()), (1_700_000_060, 60));
        assert_eq!(minter.mint(&until(1_700_000_000_950)).unwrap_err(), Error::SessionOver);
        assert_eq!(minter.mint(&until(0)).unwrap_err(), Error::SessionOver);
    }

    #[test]
    fn what_would_not_verify_is_not_minted() {
        let minter = minter(&section(Algorithm::Hs256));
        for role in ["", "a,b", "a b", "\u{7ba1}", "a\r\nb"] {
            let grant = Grant { roles: vec!["ok".into(), role.into()], ..grant(NOW) };
            assert_eq!(minter.mint(&grant).unwrap_err(), Error::Role, "{role:?}");
        }
        let grant = Grant { roles: (0..1000).map(|n| format!("role-{n}")).collect(), ..grant(NOW) };
        assert_eq!(minter.mint(&grant).unwrap_err(), Error::TooLong);
    }
}
