//! Which server of an upstream takes a request when they are to take different shares: pure functions from shares to a
//! place. With equal shares [`super::balance`] is asked, which is cheaper.

use super::balance::mix;

/// `total` cut at a point between 0 and 1, given as a fraction of 2^64.
fn point(total: u64, fraction: u64) -> u64 {
    ((u128::from(total) * u128::from(fraction)) >> 64) as u64
}

/// The place in which `point` lies when the shares stand side by side. `skipped` has no share.
fn place(shares: &[u64], mut point: u64, skipped: Option<usize>) -> usize {
    let mut last = 0;
    for (n, share) in shares.iter().enumerate().filter(|(n, _)| Some(*n) != skipped) {
        last = n;
        match point.checked_sub(*share) {
            Some(rest) => point = rest,
            None => return n,
        }
    }
    last
}

/// In turn: the turns of each place lie apart, and are as many as its share. Of small shares (plain weights) exactly so in
/// each round; of larger ones, which change while a server warms up anyway, nearly.
pub(super) fn in_turn(shares: &[u64], turn: u64) -> usize {
    // Steps of the golden ratio fall evenly into an interval, however long one looks at them.
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let total: u64 = shares.iter().sum();
    if total > SMALL {
        return place(shares, point(total, turn.wrapping_mul(GOLDEN)), None);
    }
    let mut step = (total * 618 / 1000).max(1);
    // Then each point comes once in a round.
    while gcd(step, total) != 1 {
        step += 1;
    }
    place(shares, turn % total.max(1) * step % total.max(1), None)
}

/// A round of so many turns is exact.
const SMALL: u64 = 1 << 16;

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Of two different places, drawn with `turn` by their shares, the one that has less to do for its share; the first drawn
/// on a tie.
pub(super) fn p2c(shares: &[u64], turn: u64, load: impl Fn(usize) -> usize) -> usize {
    let total: u64 = shares.iter().sum();
    let random = mix(turn);
    let first = place(shares, point(total, random), None);
    let rest = total - shares.get(first).copied().unwrap_or(0);
    if rest == 0 {
        return first;
    }
    let second = place(shares, point(rest, mix(random)), Some(first));
    let busy = |n: usize| (load(n) as u128, u128::from(shares[n].max(1)));
    let ((one, of_one), (other, of_other)) = (busy(first), busy(second));
    if other * of_one < one * of_other { second } else { first }
}

/// Rendezvous hashing by share: a place that grows takes keys from all others in proportion, and moves none between them.
/// `identity` is a number that belongs to the server and not to its place.
#[allow(clippy::cast_precision_loss)] // 53 bits of a hash are plenty, and shares are small
pub(super) fn rendezvous(shares: &[u64], key: u64, identity: impl Fn(usize) -> u64) -> usize {
    let key = mix(key);
    let score = |n: usize| {
        // In (0, 1]: the logarithm of it is exponentially distributed, and the least of several is so by their shares.
        let drawn = ((mix(key ^ identity(n)) >> 11) + 1) as f64 / (1u64 << 53) as f64;
        -drawn.ln() / shares[n].max(1) as f64
    };
    let by_score = |a: &usize, b: &usize| score(*a).total_cmp(&score(*b)).then(identity(*a).cmp(&identity(*b)));
    (0..shares.len()).min_by(by_score).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHARES: [u64; 3] = [10_000, 20_000, 50_000];

    fn counted(choose: impl Fn(u64) -> usize) -> [u32; 3] {
        let mut count = [0; 3];
        (0..8000).for_each(|turn| count[choose(turn)] += 1);
        count
    }

    #[test]
    fn each_gets_its_share_of_the_turns_and_nobody_many_in_a_row() {
        let count = counted(|turn| in_turn(&SHARES, turn));
        for (got, due) in count.into_iter().zip([1000, 2000, 5000]) {
            assert!(u32::abs_diff(got, due) <= 10, "{count:?}");
        }
        // Plain weights: exact in each round.
        let round: Vec<usize> = (8..16).map(|turn| in_turn(&[1, 2, 5], turn)).collect();
        assert_eq!([0, 1, 2].map(|n| round.iter().filter(|m| **m == n).count()), [1, 2, 5], "{round:?}");
        let rare: Vec<u64> = (0..8000).filter(|turn| in_turn(&SHARES, *turn) == 0).collect();
        assert!(rare.windows(2).all(|pair| pair[1] - pair[0] >= 3), "the turns of one lie apart");
    }

    #[test]
    fn keys_are_spread_by_share() {
        let count = counted(|key| rendezvous(&SHARES, key, |n| mix(100 + n as u64)));
        for (got, due) in count.into_iter().zip([1000, 2000, 5000]) {
            assert!(u32::abs_diff(got, due) <= 150, "{count:?}");
        }
    }

    #[test]
    fn the_one_with_less_to_do_for_its_share_is_taken() {
        // Twice the share bears twice the load.
        assert_eq!(p2c(&[1000, 2000], 7, |n| [3, 4][n]), 1);
        assert_eq!(p2c(&[1000, 2000], 7, |n| [1, 6][n]), 0);
        // Under a load that lasts, each has work in proportion to its share.
        let mut load = [0usize; 3];
        for turn in 0..800 {
            load[p2c(&SHARES, turn, |n| load[n])] += 1;
        }
        for (got, due) in load.into_iter().zip([100, 200, 500]) {
            assert!(usize::abs_diff(got, due) <= 25, "{load:?}");
        }
    }

    #[test]
    fn a_single_server_is_always_chosen() {
        assert_eq!((in_turn(&[3], 7), p2c(&[3], 7, |_| 9), rendezvous(&[3], 7, |_| 1)), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn a_server_that_grows_takes_keys_and_gives_none(
            shares in proptest::collection::vec(1u64..1000, 2..6),
            key: u64,
            grown in any::<prop::sample::Index>(),
        ) {
            let grown = grown.index(shares.len());
            let id = |n: usize| mix(n as u64);
            let before = rendezvous(&shares, key, id);
            let mut more = shares;
            more[grown] += 500;
            let after = rendezvous(&more, key, id);
            prop_assert!(after == before || after == grown);
        }

        #[test]
        fn every_place_is_one_of_them(shares in proptest::collection::vec(1u64..100_000, 1..20), turn: u64) {
            let n = shares.len();
            prop_assert!(in_turn(&shares, turn) < n);
            prop_assert!(p2c(&shares, turn, |_| 1) < n);
            prop_assert!(rendezvous(&shares, turn, |n| n as u64) < n);
        }
    }
}
