//! Whether the person for whom something was just written is still a member who may log in. Whoever erased or banned them
//! while it was under way could not see it yet, so it is looked at once more behind the write, and undone if need be.
//!
//! Undone is only what is known to be wrong. When the members cannot be asked, the session may be in other hands by then:
//! another instance that was shown the same code gives out the session that it led to, after the same question. So the call
//! fails, and the question is asked again until there is an answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::problem::{Code, Problem};
use crate::store::Session;

use super::Auth;

/// How often the members are asked again, and how many times: a quarter of an hour.
const AGAIN: Duration = Duration::from_secs(5);
const TIMES: u32 = 180;

/// So many are asked about at a time: a database that is away for long must not fill memory.
static PLACES: Semaphore = Semaphore::const_new(1_000);

/// What was written for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// A session, perhaps with a key.
    Session,
    /// A key for a session that was there.
    Key,
}

/// Passes when the person of `session` is still welcome; else what was written for them goes.
///
/// # Errors
/// `token_revoked` when the member is gone, `member_banned`; `store_unavailable` when nobody knows, and then it is seen to later.
pub(super) async fn still_welcome(auth: &Arc<Auth>, session: &Session, written: Written) -> Result<(), Problem> {
    match verdict(auth, session, written).await {
        Ok(None) => Ok(()),
        Ok(Some(unwelcome)) => Err(unwelcome),
        Err(unknown) => {
            let Ok(place) = PLACES.try_acquire() else {
                tracing::warn!("too many logins that failed are still asked about: one of them stands unasked");
                return Err(unknown);
            };
            let (auth, session) = (Arc::clone(auth), session.clone());
            tokio::spawn(async move {
                let _place = place;
                for _ in 0..TIMES {
                    tokio::time::sleep(AGAIN).await;
                    if verdict(&auth, &session, written).await.is_ok() {
                        return;
                    }
                }
                tracing::warn!("the members could not be asked whether a login that failed still stands");
            });
            Err(unknown)
        }
    }
}

/// Why the person is not welcome any more, when all that was written for them is gone; `None` when they are.
async fn verdict(auth: &Auth, session: &Session, written: Written) -> Result<Option<Problem>, Problem> {
    let unwelcome = match auth.members.find(&session.member_id).await? {
        Some(member) if !member.banned => return Ok(None),
        Some(_) => Problem::new(Code::MemberBanned, "This member may not log in."),
        None => Problem::token_revoked(),
    };
    auth.sessions.erase_keys(&session.appid, &session.openid).await?;
    if written == Written::Session {
        let now = auth.clock.now();
        auth.end(&session.session_id, now, auth.access_until(now)).await?;
    }
    Ok(Some(unwelcome))
}
