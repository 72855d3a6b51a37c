//! Assertions: who the caller is, signed for one upstream alone.
//!
//! An upstream that cannot rely on its network reads the caller from a JWT in place of plain headers, and checks it with
//! the published keys. `typ` is [`ASSERTION_TYP`] and `aud` the upstream's name, so that an assertion is no access token
//! and one upstream's is not another's (RFC 8725, sections 3.9 and 3.11). It is shared by the requests of half a minute
//! and has no `jti` therefore.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::keys::KeyRing;
use super::sign::{self, sign};
use super::{ASSERTION_TYP, Claims, MAX_TOKEN};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Algorithm};
use crate::ids::{AppId, MemberId, OpenId, Secret, SessionId, UnionId};

/// Life of an assertion.
pub const TTL: Duration = Duration::from_secs(60);

/// What an upstream has left of it at least, when it is sent again: half of its life.
pub const LEFT: Duration = Duration::from_secs(30);

/// Why no assertion was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No key, or it could not sign.
    #[error(transparent)]
    Unsigned(#[from] sign::Error),
    /// So many roles that it would be longer than is looked at.
    #[error("the assertion would be longer than {MAX_TOKEN} bytes")]
    TooLong,
}

/// A new assertion.
#[derive(Debug, Clone)]
pub struct Assertion {
    /// The JWT, for the upstream alone.
    pub jwt: Secret<String>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
}

/// Makes assertions with an active key that is published.
#[derive(Debug)]
pub struct Asserter {
    ring: Arc<KeyRing>,
    algorithm: Algorithm,
    issuer: Box<str>,
    clock: Clock,
}

/// The claims in the order in which they are written.
#[derive(Serialize)]
struct Written<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a MemberId,
    client_id: &'a AppId,
    appid: &'a AppId,
    openid: &'a OpenId,
    #[serde(skip_serializing_if = "Option::is_none")]
    unionid: Option<&'a UnionId>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    roles: &'a [String],
    sid: &'a SessionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<i64>,
    iat: i64,
    exp: i64,
}

/// What signs assertions where `algorithm` signs access tokens. A shared secret is not published, so nobody could check
/// what it signed.
pub const fn algorithm(algorithm: Algorithm) -> Algorithm {
    match algorithm {
        Algorithm::Hs256 => Algorithm::Es256,
        Algorithm::Es256 | Algorithm::EdDsa | Algorithm::Rs256 => algorithm,
    }
}

impl Asserter {
    /// Signs with the active key of `ring` that fits the algorithm of `section`.
    pub fn new(ring: Arc<KeyRing>, section: &config::Token, clock: Clock) -> Self {
        Self { ring, algorithm: algorithm(section.algorithm), issuer: section.issuer.as_str().into(), clock }
    }

    /// An assertion of what `caller` says, for the upstream of this name; good for [`TTL`].
    ///
    /// # Errors
    /// [`Error`]; then the request is not to be forwarded.
    pub fn assert(&self, caller: &Claims, upstream: &str) -> Result<Assertion, Error> {
        let issued_at = Timestamp::from_secs(self.clock.now().secs());
        let expires_at = issued_at.plus(TTL);
        let written = Written {
            iss: &self.issuer,
            aud: upstream,
            sub: &caller.member_id,
            client_id: &caller.appid,
            appid: &caller.appid,
            openid: &caller.openid,
            unionid: caller.unionid.as_ref(),
            roles: &caller.roles,
            sid: &caller.session_id,
            auth_time: caller.auth_time.map(Timestamp::secs),
            iat: issued_at.secs(),
            exp: expires_at.secs(),
        };
        let jwt = sign(&self.ring, self.algorithm, ASSERTION_TYP, &written)?;
        if jwt.expose().len() > MAX_TOKEN {
            return Err(Error::TooLong);
        }
        Ok(Assertion { jwt, issued_at, expires_at })
    }

    /// The time that assertions are judged by.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::{Value, json};

    use super::super::fixture::{caller, kid, ring, section};
    use super::super::jwks;
    use super::super::mint::Minter;
    use super::super::verify::{Error as Refused, Verifier};
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_900);

    fn asserter(algorithm: Algorithm, clock: &Clock) -> Asserter {
        Asserter::new(ring(), &section(algorithm), clock.clone())
    }

    fn part(jwt: &str, n: usize) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(n).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn an_assertion_says_who_the_caller_is_to_one_upstream() {
        let made = asserter(Algorithm::Es256, &Clock::manual(NOW)).assert(&caller(NOW), "orders").unwrap();
        let (header, claims) = (part(made.jwt.expose(), 0), part(made.jwt.expose(), 1));
        assert_eq!(header, json!({"typ": "wxgate-assertion+jwt", "alg": "ES256", "kid": kid(Algorithm::Es256)}));
        let expected = json!({
            "iss": "https://auth.example.test", "aud": "orders", "sub": "member-1", "client_id": "wx0123456789abcdef",
            "appid": "wx0123456789abcdef", "openid": "oX-alice_0123456789012345678", "unionid": "oU-alice",
            "roles": ["admin", "shop:read"], "sid": "session-1", "auth_time": 1_700_000_000,
            "iat": 1_700_000_000, "exp": 1_700_000_060,
        });
        assert_eq!(claims, expected);
        assert!(!format!("{made:?}").contains(made.jwt.expose()));
    }

    #[test]
    fn whatever_signs_the_tokens_a_service_checks_the_assertion_with_the_published_keys() {
        let set: JwkSet = serde_json::from_str(&jwks::document(&ring())).unwrap();
        for (algorithm, theirs) in [
            (Algorithm::Es256, jsonwebtoken::Algorithm::ES256),
            (Algorithm::EdDsa, jsonwebtoken::Algorithm::EdDSA),
            (Algorithm::Rs256, jsonwebtoken::Algorithm::RS256),
            (Algorithm::Hs256, jsonwebtoken::Algorithm::ES256),
        ] {
            let clock = Clock::system();
            let made = asserter(algorithm, &clock).assert(&caller(clock.now()), "orders").unwrap();
            let header = jsonwebtoken::decode_header(made.jwt.expose()).unwrap();
            assert_eq!(header.alg, theirs);
            let key = DecodingKey::from_jwk(set.find(&header.kid.unwrap()).unwrap()).unwrap();
            let mut validation = Validation::new(theirs);
            validation.set_audience(&["orders"]);
            let claims = jsonwebtoken::decode::<Value>(made.jwt.expose(), &key, &validation).unwrap().claims;
            assert_eq!(claims["openid"], "oX-alice_0123456789012345678");
            validation.set_audience(&["billing"]);
            assert!(jsonwebtoken::decode::<Value>(made.jwt.expose(), &key, &validation).is_err());
        }
    }

    /// Also where an upstream bears the name of the audience.
    #[test]
    fn an_assertion_is_no_access_token_and_an_access_token_is_no_assertion() {
        for algorithm in Algorithm::ALL {
            let clock = Clock::manual(NOW);
            let verifier = Verifier::new(ring(), &section(algorithm), clock.clone());
            let made = asserter(algorithm, &clock).assert(&caller(NOW), "wxgate").unwrap();
            assert_eq!(verifier.verify(made.jwt.expose().as_bytes()).unwrap_err(), Refused::Type);
            let token =
                Minter::new(ring(), &section(algorithm), clock).mint(&super::super::fixture::grant(NOW)).unwrap();
            assert_ne!(part(token.token.expose(), 0)["typ"], ASSERTION_TYP);
        }
    }

    #[test]
    fn roles_beyond_what_is_looked_at_are_no_assertion() {
        let caller = Claims { roles: (0..1000).map(|n| format!("role-{n}")).collect(), ..caller(NOW) };
        let refused = asserter(Algorithm::Es256, &Clock::manual(NOW)).assert(&caller, "orders").unwrap_err();
        assert_eq!(refused, Error::TooLong);
    }
}
