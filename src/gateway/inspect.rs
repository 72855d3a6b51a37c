//! What a token is, whether it is good now, and if not, why: for operators, who may know.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::problem::Problem;
use crate::store::RefreshHash;
use crate::token::handle::is_handle;
use crate::token::refresh::RefreshToken;
use crate::token::{ASSERTION_TYP, Claims, access};

use super::Gateway;

/// What was found. Made for the operator who holds the token; nothing of it is logged.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// What it seems to be.
    pub kind: &'static str,
    /// Whether this gateway would take it now (an assertion: whether an upstream should).
    pub valid: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The header of a JWT, as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<Value>,
    /// The claims of a JWT, as they stand, believed only when `valid`; or what a good handle stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<Value>,
    /// The session that it belongs to, where the token alone does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

impl Inspection {
    fn of(kind: &'static str, refused: Option<String>) -> Self {
        Self { kind, valid: refused.is_none(), reason: refused, header: None, claims: None, session: None }
    }
}

impl Gateway {
    /// Looks at `token`.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn inspect(&self, token: &str) -> Result<Inspection, Problem> {
        if let Ok(refresh) = RefreshToken::parse(token) {
            return self.inspect_refresh(&refresh).await;
        }
        if is_handle(token.as_bytes()) {
            return self.inspect_handle(token.as_bytes()).await;
        }
        let mut parts = token.split('.');
        let header = parts.next().and_then(part);
        let claims = parts.next().and_then(part);
        let snapshot = self.current();
        let is_assertion = header.as_ref().is_some_and(|header| header["typ"] == ASSERTION_TYP);
        let inspection = if is_assertion {
            Inspection::of(
                "assertion",
                snapshot.verifier.check_assertion(token.as_bytes()).err().map(|e| e.to_string()),
            )
        } else {
            let checked = access::check(&snapshot.verifier, &self.kept.revocations, token.as_bytes());
            let mut refused = checked.as_ref().err().map(ToString::to_string);
            // The endpoints ask the store, too.
            if let Ok(claims) = &checked
                && self.kept.sessions.find(&claims.session_id, self.kept.clock.now()).await?.is_none()
            {
                refused = Some("routes take it, but this gateway knows no session of it".to_owned());
            }
            let kind = if header.is_some() { "access token" } else { "unknown" };
            Inspection { valid: checked.is_ok(), ..Inspection::of(kind, refused) }
        };
        Ok(Inspection { header, claims, ..inspection })
    }

    async fn inspect_handle(&self, token: &[u8]) -> Result<Inspection, Problem> {
        let snapshot = self.current();
        let kind = "opaque access token";
        let handle = match snapshot.auth.handles.read_even_if_expired(token) {
            Ok(handle) => handle,
            Err(error) => return Ok(Inspection::of(kind, Some(error.to_string()))),
        };
        let session = Some(handle.session_id.as_str().to_owned());
        let (refused, claims) = match snapshot.auth.access(token).await {
            Ok(claims) => (None, Some(of_claims(&claims))),
            Err(problem) if problem.code().status() >= 500 => return Err(problem),
            Err(problem) => (Some(problem.code().title().to_owned()), None),
        };
        Ok(Inspection { session, claims, ..Inspection::of(kind, refused) })
    }

    async fn inspect_refresh(&self, token: &RefreshToken) -> Result<Inspection, Problem> {
        let (sessions, now) = (&self.kept.sessions, self.kept.clock.now());
        let Some(session) = sessions.find_by_refresh(RefreshHash(token.hash()), now).await? else {
            let refused = "it is unknown, has expired, or its session was ended";
            return Ok(Inspection::of("refresh token", Some(refused.to_owned())));
        };
        let successor = RefreshHash(self.kept.refresh.successor(token).hash());
        let used = sessions.find_by_refresh(successor, now).await?.is_some();
        let refused = used.then(|| "it was used; its successor is in force".to_owned());
        let session = Some(session.session_id.as_str().to_owned());
        Ok(Inspection { session, ..Inspection::of("refresh token", refused) })
    }
}

/// What a handle stands for, as the claims of a JWT would say it.
fn of_claims(claims: &Claims) -> Value {
    json!({
        "sub": claims.member_id,
        "sid": claims.session_id,
        "appid": claims.appid,
        "openid": claims.openid,
        "unionid": claims.unionid,
        "roles": claims.roles,
        "user_id": claims.user_id,
        "jti": claims.jti,
        "auth_time": claims.auth_time.map(Timestamp::secs),
        "iat": claims.issued_at.secs(),
        "exp": claims.expires_at.secs(),
    })
}

/// The JSON of a part of a JWT.
fn part(text: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}
