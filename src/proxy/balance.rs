//! Which server of an upstream takes a request: pure functions from numbers to an index.

/// A well-mixed number from any other (the finaliser of SplitMix64). The same on every instance and in every version, so
/// that a caller keeps its server across restarts.
pub(super) const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// In turn: the `turn`-th choice among `n` servers (`n` at least 1).
pub(super) const fn round_robin(n: usize, turn: u64) -> usize {
    (turn % n as u64) as usize
}

/// The less loaded of two different servers drawn with `turn` ("the power of two choices"); the first drawn on a tie.
pub(super) fn p2c(n: usize, turn: u64, load: impl Fn(usize) -> usize) -> usize {
    if n < 2 {
        return 0;
    }
    let random = mix(turn);
    let first = (random % n as u64) as usize;
    // Drawn among the others, so that the two differ.
    let other = ((random >> 32) % (n as u64 - 1)) as usize;
    let second = if other >= first { other + 1 } else { other };
    if load(second) < load(first) { second } else { first }
}

/// Rendezvous hashing: the server with the highest score for `key`. A server that goes takes only its own keys with it.
/// `identity` is a number that belongs to the server and not to its place in the list.
pub(super) fn rendezvous(n: usize, key: u64, identity: impl Fn(usize) -> u64) -> usize {
    let key = mix(key);
    (0..n)
        .max_by_key(|&index| {
            let id = identity(index);
            (mix(key ^ id), id)
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn round_robin_gives_each_server_its_turn() {
        let chosen: Vec<_> = (0..6).map(|turn| round_robin(3, turn)).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn two_choices_spread_equal_servers_evenly_and_never_pick_the_busiest() {
        let mut count = [0u32; 4];
        for turn in 0..4000 {
            count[p2c(4, turn, |_| 0)] += 1;
        }
        assert!(count.iter().all(|&n| (850..1150).contains(&n)), "{count:?}");
        let loads = [3, 9, 1, 2];
        assert!((0..1000).all(|turn| p2c(4, turn, |i| loads[i]) != 1));
    }

    #[test]
    fn a_single_server_is_always_chosen() {
        assert_eq!((round_robin(1, 7), p2c(1, 7, |_| 5), rendezvous(1, 7, |_| 5)), (0, 0, 0));
    }

    #[test]
    fn hashing_spreads_keys_evenly() {
        let mut count = [0u32; 4];
        for key in 0..4000 {
            count[rendezvous(4, key, |i| mix(100 + i as u64))] += 1;
        }
        assert!(count.iter().all(|&n| (850..1150).contains(&n)), "{count:?}");
    }

    proptest! {
        #[test]
        fn removing_a_server_moves_only_its_own_keys(
            ids in proptest::collection::hash_set(any::<u64>(), 2..10),
            key in any::<u64>(),
            gone in any::<prop::sample::Index>(),
        ) {
            let ids: Vec<u64> = ids.into_iter().collect();
            let gone = gone.index(ids.len());
            let before = ids[rendezvous(ids.len(), key, |i| ids[i])];
            let mut left = ids.clone();
            left.remove(gone);
            let after = left[rendezvous(left.len(), key, |i| left[i])];
            prop_assert!(before == after || before == ids[gone]);
        }

        #[test]
        fn the_order_of_servers_does_not_matter(ids in proptest::collection::hash_set(any::<u64>(), 1..10), key: u64) {
            let ids: Vec<u64> = ids.into_iter().collect();
            let turned: Vec<u64> = ids.iter().rev().copied().collect();
            let one = ids[rendezvous(ids.len(), key, |i| ids[i])];
            let other = turned[rendezvous(turned.len(), key, |i| turned[i])];
            prop_assert_eq!(one, other);
        }
    }
}
