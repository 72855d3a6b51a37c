//! Whom an opaque access token stands for: read from the stores once, then remembered until it ends.
//!
//! Only handles that this deployment issued get here ([`crate::token::handle`]), so those that somebody makes up cost the
//! store nothing and put nobody out of memory. One read per handle, however many requests wait for it; what failed is not
//! remembered. What is remembered outlives reloads; whether it was revoked since is asked on every use, as with a JWT.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::clock::Clock;
use crate::problem::{Code, Problem};
use crate::store::{Members, Sessions};
use crate::token::cache::VerifiedCache;
use crate::token::handle::{Handle, is_handle};
use crate::token::revocation::Revocations;
use crate::token::{Claims, Grant, access, is_name};

use super::single_flight::SingleFlight;
use super::{Auth, answer};

/// Memory for what was read, bytes: about 170,000 handles.
const CAPACITY: u64 = 128 * 1024 * 1024;

/// How long a request waits for the stores, queue included.
const DEADLINE: Duration = Duration::from_secs(5);

/// Seconds after which a client may ask again when the stores are slow.
const RETRY_SECS: u64 = 5;

/// Reads at once; others wait. After a restart everybody's handle is read anew.
const MOST: usize = 512;

/// See the [module documentation](self).
#[derive(Debug)]
pub struct Lookups {
    members: Arc<dyn Members>,
    sessions: Arc<dyn Sessions>,
    revocations: Arc<Revocations>,
    clock: Clock,
    known: VerifiedCache<Claims>,
    flights: Arc<SingleFlight<Uuid, Result<Arc<Claims>, Problem>>>,
    room: Semaphore,
    reads: AtomicU64,
    failures: AtomicU64,
}

impl Lookups {
    /// Nothing read yet.
    pub fn new(
        members: &Arc<dyn Members>,
        sessions: &Arc<dyn Sessions>,
        revocations: &Arc<Revocations>,
        clock: &Clock,
    ) -> Self {
        Self {
            members: Arc::clone(members),
            sessions: Arc::clone(sessions),
            revocations: Arc::clone(revocations),
            clock: clock.clone(),
            known: VerifiedCache::new(CAPACITY, 0),
            flights: Arc::default(),
            room: Semaphore::new(MOST),
            reads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Whom this handle stands for, if it was read before and has not expired. What was revoked since is not known here.
    pub fn known(&self, token: &[u8]) -> Option<Arc<Claims>> {
        self.known.get(token, self.clock.now())
    }

    /// Whom `token` stands for, which was read as `handle`. Again without what was revoked in this very moment.
    ///
    /// # Errors
    /// `token_revoked` when the session has ended or its record is gone; `store_unavailable` when nobody can tell.
    pub async fn find(self: &Arc<Self>, token: &[u8], handle: &Handle) -> Result<Arc<Claims>, Problem> {
        if let Some(known) = self.known(token) {
            return Ok(known);
        }
        let lookups = Arc::clone(self);
        let (token, handle, jti) = (token.to_owned(), handle.clone(), handle.jti);
        let work = move || async move {
            lookups.reads.fetch_add(1, Ordering::Relaxed);
            let read = match tokio::time::timeout(DEADLINE, lookups.read(&handle)).await {
                Ok(read) => read,
                Err(late) => Err(Problem::new(Code::StoreUnavailable, "Try again later.")
                    .retry_after(RETRY_SECS)
                    .caused_by(late)),
            };
            match read {
                Ok(claims) => {
                    let claims = Arc::new(claims);
                    lookups.known.insert(token.into(), Arc::clone(&claims));
                    Ok(claims)
                }
                Err(problem) => {
                    if problem.code().status() >= 500 {
                        lookups.failures.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(problem)
                }
            }
        };
        let (found, _) = self.flights.run(jti, work).await;
        found.unwrap_or_else(|| Err(Problem::internal("reading a session panicked")))
    }

    async fn read(&self, handle: &Handle) -> Result<Claims, Problem> {
        // A session that is known to be over needs no store to be refused.
        if self.revocations.has_ended(&handle.session_id) {
            return Err(Problem::token_revoked());
        }
        let _place = self.room.acquire().await.map_err(Problem::internal)?;
        let session = self.sessions.find(&handle.session_id, self.clock.now()).await?;
        let session = session.ok_or_else(Problem::token_revoked)?;
        if self.revocations.is_over(&session.member_id, &session.appid, session.created_at) {
            return Err(Problem::token_revoked());
        }
        let member = self.members.find(&session.member_id).await?.ok_or_else(Problem::token_revoked)?;
        if member.banned {
            return Err(Problem::token_revoked());
        }
        if !member.roles.iter().all(|role| is_name(role)) {
            return Err(Problem::internal("a member has a role that cannot stand in a header"));
        }
        Ok(handle.claims(answer::grant(&session, &member, handle.issued_at)))
    }

    /// How often the stores were asked; for metrics.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// How often they did not answer; for metrics.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Roughly how many handles are known; for metrics.
    pub fn len(&self) -> u64 {
        self.known.len()
    }

    /// Roughly whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Auth {
    /// What an access token says, a JWT or a handle, if it is good now.
    ///
    /// # Errors
    /// `token_*`; `store_unavailable`.
    pub async fn access(&self, token: &[u8]) -> Result<Claims, Problem> {
        if !is_handle(token) {
            return Ok(access::check(&self.verifier, &self.revocations, token)?);
        }
        let handle = self.handles.read(token).map_err(access::Error::from)?;
        let claims = self.lookups.find(token, &handle).await?;
        Ok(access::check_read(&self.revocations, Claims::clone(&claims))?)
    }

    /// As [`Auth::access`], and a handle of a live session will do whose member is gone: the caller's session is what an erasure
    /// ends last, so one that broke off can be asked for again, at every instance. A JWT says whose it is by itself.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn access_to_erase(&self, token: &[u8]) -> Result<Claims, Problem> {
        let refused = match self.access(token).await {
            Err(refused) if refused.code() == Code::TokenRevoked && is_handle(token) => refused,
            other => return other,
        };
        let handle = self.handles.read(token).map_err(access::Error::from)?;
        let found = self.sessions.find(&handle.session_id, self.clock.now()).await?;
        let Some(session) = found.filter(|session| !self.is_over(session)) else { return Err(refused) };
        if self.members.find(&session.member_id).await?.is_some() {
            return Err(refused);
        }
        let grant = Grant {
            member_id: session.member_id,
            session_id: session.session_id,
            appid: session.appid,
            openid: session.openid,
            unionid: None,
            roles: Vec::new(),
            user_id: None,
            claims: String::new(),
            auth_time: session.created_at,
            session_expires_at: session.expires_at,
        };
        Ok(access::check_read(&self.revocations, handle.claims(grant))?)
    }
}
