//! A fresh access token for a session that is in use, without its refresh token (`[token] renew_within`).

use crate::problem::Problem;
use crate::token::Claims;
use crate::token::mint::Minted;

use super::{Auth, answer};

impl Auth {
    /// A token of the caller's session that outlives the one in hand. `None` when the session is over, unknown or
    /// revoked, the member banned, the end of the session reached, or the store away: then the old one simply expires.
    pub async fn renew(&self, caller: &Claims) -> Option<Minted> {
        match self.try_renew(caller).await {
            Ok(minted) => minted.filter(|minted| minted.claims.expires_at > caller.expires_at),
            Err(error) => {
                tracing::debug!(code = ?error.code(), "a token was not renewed");
                None
            }
        }
    }

    async fn try_renew(&self, caller: &Claims) -> Result<Option<Minted>, Problem> {
        let now = self.clock.now();
        // On disk before there is a token: whoever ends the session must know how long that is to be remembered.
        let prolonged = self.sessions.prolong(&caller.session_id, now, self.access_until(now)).await?;
        let Some(session) = prolonged else { return Ok(None) };
        let Some(member) = self.members.find(&session.member_id).await? else { return Ok(None) };
        // As with a refresh, what was revoked meanwhile has no successor.
        if member.banned || self.revocations.is_revoked(caller) {
            return Ok(None);
        }
        let member = self.with_roles_in_force(member, &session.member_id).await?;
        answer::access_token(self, &session, &member).map(Some)
    }
}
