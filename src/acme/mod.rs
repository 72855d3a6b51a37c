//! Certificates that an authority issues and renews (ACME, RFC 8555), and the answers by which it knows that names are ours.
//!
//! [`Managed`] holds what is shown to clients and to the authority; one task for it orders a certificate when there is none
//! or when the last third of its life begins ([`order`]), and keeps it on disk ([`shelf`]). It decides nothing about requests,
//! and a failure leaves the certificate that is there in use.

mod order;
mod shelf;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::sign::CertifiedKey;

use crate::clock::Clock;
use crate::config::{Acme, Challenge};

use shelf::{Kept, Shelf};

/// The protocol by which an authority asks for its answer in a handshake (RFC 8737, section 3).
pub const ALPN: &[u8] = b"acme-tls/1";

/// Where the authority asks for its answer on port 80 (RFC 8555, section 8.3); the token follows.
pub const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// How often a certificate is looked at.
const LOOK: Duration = Duration::from_secs(3600);

/// How long to wait after the first failure; then four times as long each time, up to [`LONGEST`]. Authorities count
/// failures (Let's Encrypt: five an hour).
const RETRY: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// What is shown for one `acme` section.
#[derive(Debug)]
pub struct Managed {
    section: Arc<Acme>,
    shelf: Shelf,
    current: ArcSwapOption<Kept>,
    answers: RwLock<Answers>,
}

/// What the authority may ask for at present.
#[derive(Debug, Default)]
struct Answers {
    /// By name.
    certificates: HashMap<String, Arc<CertifiedKey>>,
    /// By token.
    files: HashMap<String, String>,
}

impl Managed {
    /// What clients are shown; `None` as long as nothing was issued.
    pub fn certificate(&self) -> Option<Arc<CertifiedKey>> {
        self.current.load().as_ref().map(|kept| Arc::clone(&kept.certified))
    }

    /// Whether the authority is answered in handshakes.
    pub fn answers_by_alpn(&self) -> bool {
        self.section.challenge == Challenge::TlsAlpn01
    }

    /// The answer in a handshake for `name`, if the authority was told to ask.
    pub fn challenge(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        answers.certificates.get(&name.to_ascii_lowercase()).map(Arc::clone)
    }

    /// The answer on port 80 for `token`, if the authority was told to ask.
    pub fn file(&self, token: &str) -> Option<String> {
        self.answers.read().unwrap_or_else(PoisonError::into_inner).files.get(token).cloned()
    }

    fn answer(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.answers.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// How long the certificate is good before it should be renewed; zero when that is now.
    fn rest(&self, clock: &Clock) -> Duration {
        let Some(kept) = self.current.load_full() else { return Duration::ZERO };
        let now = clock.now().secs();
        let renew_at = kept.until - (kept.until - kept.from) / 3;
        Duration::from_secs(u64::try_from(renew_at - now).unwrap_or(0))
    }
}

/// The one that is managed. Outlives reloads: what was issued or ordered is not ordered again because a file was saved.
#[derive(Debug, Default)]
pub struct Authority(Mutex<Weak<Managed>>);

impl Authority {
    /// What is managed for `section`: the one in use if nothing has changed. A new one needs a runtime, on which it is renewed
    /// for as long as somebody holds it.
    ///
    /// # Errors
    /// When what was kept in `folder` cannot be read, or the folder cannot be made.
    pub fn manage(&self, section: &Arc<Acme>, folder: &Path, clock: &Clock) -> std::io::Result<Arc<Managed>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(managed) = known.upgrade().filter(|managed| managed.section == *section) {
            return Ok(managed);
        }
        let shelf = Shelf::open(folder, section)?;
        let current = ArcSwapOption::from(shelf.certificate()?.map(Arc::new));
        let managed = Arc::new(Managed { section: Arc::clone(section), shelf, current, answers: RwLock::default() });
        *known = Arc::downgrade(&managed);
        tokio::spawn(keep(Arc::downgrade(&managed), clock.clone()));
        Ok(managed)
    }
}

/// Renews for as long as somebody wants it.
async fn keep(managed: Weak<Managed>, clock: Clock) {
    let mut pause = RETRY;
    while let Some(managed) = managed.upgrade() {
        let rest = managed.rest(&clock);
        let wait = if rest.is_zero() {
            match order::order(&managed).await {
                Ok(kept) => {
                    managed.current.store(Some(Arc::new(kept)));
                    tracing::info!(domains = ?managed.section.domains, "a certificate was issued");
                    pause = RETRY;
                    // Not at once again, whatever the authority put into it.
                    RETRY
                }
                Err(error) => {
                    let wait = pause;
                    pause = LONGEST.min(pause * 4);
                    let secs = wait.as_secs();
                    tracing::error!(%error, domains = ?managed.section.domains, retry_in_secs = secs, "no certificate was issued");
                    wait
                }
            }
        } else {
            rest.min(LOOK)
        };
        drop(managed);
        tokio::time::sleep(wait).await;
    }
}
