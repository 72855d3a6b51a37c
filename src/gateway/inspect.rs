//! What a token is, whether it is good now, and if not, why: for operators, who may know.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;

use crate::problem::Problem;
use crate::store::RefreshHash;
use crate::token::refresh::RefreshToken;
use crate::token::{ASSERTION_TYP, access};

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
    /// The claims of a JWT, as they stand; believed only when `valid`.
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

/// The JSON of a part of a JWT.
fn part(text: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}
