//! How many connections there are file descriptors for.

use std::num::NonZeroUsize;

/// Descriptors for everything but clients and upstreams: store, log, other listeners, WeChat, runtimes.
const RESERVE: u64 = 256;

/// Raises the soft limit of descriptors (`RLIMIT_NOFILE`) as far as the hard limit allows: the soft one is low for the sake
/// of programs that use `select`, and we do not. Returns what it is now.
pub(super) fn raise() -> u64 {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => limit,
        Err(error) => {
            let limit = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(1024, |(soft, _)| soft);
            tracing::warn!(%error, limit, "the limit of file descriptors cannot be raised");
            limit
        }
    }
}

/// The most connections of clients that fit under `limit` descriptors when each may need one to an upstream, too; and no
/// more than `wanted`, if that is said.
pub(super) fn connections(limit: u64, wanted: Option<NonZeroUsize>) -> usize {
    let fit = usize::try_from(limit.saturating_sub(RESERVE) / 2).unwrap_or(usize::MAX).max(16);
    wanted.map_or(fit, |wanted| wanted.get().min(fit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_room_for_a_connection_to_an_upstream() {
        assert_eq!(connections(1024, None), 384);
        assert_eq!(connections(1024, NonZeroUsize::new(100)), 100);
        assert_eq!(connections(1024, NonZeroUsize::new(100_000)), 384);
        assert_eq!(connections(10, None), 16, "a few in any case: accepting pauses when there are none left");
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise();
        let (soft, hard) = rlimit::getrlimit(rlimit::Resource::NOFILE).unwrap();
        assert_eq!((limit, soft), (soft, hard));
    }
}
