//! A caller's assertions, kept where the caller is kept: in the cache of verified tokens.
//!
//! So a request pays a look in a list of a few entries and no signature; an assertion says exactly what the other headers
//! say; and it is gone with its token, with the ring that signed it (each snapshot has its own cache) and, because a
//! revoked token never comes as far as here, with the session.

use std::fmt;
use std::sync::OnceLock;

use arc_swap::ArcSwap;
use http::HeaderValue;

use crate::clock::Timestamp;
use crate::problem::Problem;
use crate::token::Claims;
use crate::token::assertion::{Asserter, LEFT};

/// About what one takes in memory, bytes; for the bound of the cache.
pub const WEIGHT: usize = 1024;

/// By upstream. Nothing is made before a route asks: most callers never need it, and to take it down costs a look at all threads.
#[derive(Default)]
pub struct Assertions(OnceLock<ArcSwap<Vec<Held>>>);

#[derive(Clone)]
struct Held {
    /// Its place in the configuration.
    upstream: usize,
    value: HeaderValue,
    /// `iat`. Before it (the clock was set back), the upstream would refuse it.
    from: Timestamp,
    /// `exp`, less what an upstream is to have left of it.
    renew_at: Timestamp,
}

impl Held {
    fn is_fresh(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.renew_at
    }
}

impl Assertions {
    /// The assertion of `caller` for this upstream: the one that is there, or a new one.
    ///
    /// # Errors
    /// `internal`, when none can be made.
    pub fn get(
        &self,
        caller: &Claims,
        upstream: usize,
        name: &str,
        asserter: &Asserter,
    ) -> Result<HeaderValue, Problem> {
        let now = asserter.now();
        let fits = |held: &&Held| held.upstream == upstream && held.is_fresh(now);
        if let Some(list) = self.0.get()
            && let Some(held) = list.load().iter().find(fits)
        {
            return Ok(held.value.clone());
        }
        let made = asserter.assert(caller, name).map_err(Problem::internal)?;
        let mut value = HeaderValue::from_str(made.jwt.expose()).map_err(Problem::internal)?;
        value.set_sensitive(true);
        let held = Held { upstream, value: value.clone(), from: made.issued_at, renew_at: made.expires_at.minus(LEFT) };
        // Two requests at once may both sign; either is good.
        self.0.get_or_init(ArcSwap::default).rcu(|list| {
            let others = list.iter().filter(|held| held.upstream != upstream && held.is_fresh(now));
            others.chain([&held]).cloned().collect::<Vec<_>>()
        });
        Ok(value)
    }
}

impl fmt::Debug for Assertions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Assertions(…)")
    }
}
