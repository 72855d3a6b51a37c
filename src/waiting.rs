//! Those that wait for their turn, and the order in which they get it.
//!
//! While the line moves, whoever has waited longest comes first. Once he has waited for longer than is good, there is more to
//! do than can be done, and that order would serve everybody when it is too late for him: then the newest comes first, who
//! is served in time, and the oldest wait until somebody tells them no (adaptive LIFO; Maurer, "Fail at Scale", ACM Queue 13(8)).

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// A line. What its members are given is a `T`; whoever drops his receiver has left.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    /// The oldest in front. May hold some that have left.
    line: VecDeque<(Instant, oneshot::Sender<T>)>,
    /// When it is longer, those are taken out: twice what was left the last time, so that it costs next to nothing for each.
    longest: usize,
}

/// Shorter lines are not looked through.
const SHORT: usize = 64;

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { line: VecDeque::new(), longest: SHORT }
    }
}

impl<T> Waiting<T> {
    /// Whether anybody is there.
    pub(crate) fn anybody(&mut self) -> bool {
        while self.line.front().is_some_and(|(_, one)| one.is_closed()) {
            self.line.pop_front();
        }
        while self.line.back().is_some_and(|(_, one)| one.is_closed()) {
            self.line.pop_back();
        }
        !self.line.is_empty()
    }

    /// Stands at the end.
    pub(crate) fn join(&mut self, now: Instant) -> oneshot::Receiver<T> {
        if self.line.len() > self.longest {
            self.line.retain(|(_, one)| !one.is_closed());
            self.longest = SHORT.max(2 * self.line.len());
        }
        let (one, turn) = oneshot::channel();
        self.line.push_back((now, one));
        turn
    }

    /// How long the oldest has been waiting.
    pub(crate) fn age(&mut self, now: Instant) -> Duration {
        self.anybody();
        self.line.front().map_or(Duration::ZERO, |(since, _)| now.saturating_duration_since(*since))
    }

    /// Who comes next, and since when he has been there: the oldest, or the newest once the oldest has waited for longer than `patience`.
    pub(crate) fn next(&mut self, now: Instant, patience: Duration) -> Option<(Instant, oneshot::Sender<T>)> {
        if self.age(now) <= patience { self.line.pop_front() } else { self.line.pop_back() }
    }

    /// The oldest, and since when he has been there, if he has waited for longer than `patience`.
    pub(crate) fn overdue(&mut self, now: Instant, patience: Duration) -> Option<(Instant, oneshot::Sender<T>)> {
        if self.age(now) <= patience { None } else { self.line.pop_front() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(250);

    async fn pass(millis: u64) -> Instant {
        tokio::time::advance(Duration::from_millis(millis)).await;
        Instant::now()
    }

    /// Five that came a tenth of a second apart, told apart by what they are given.
    async fn line() -> (Waiting<u8>, Vec<oneshot::Receiver<u8>>) {
        let mut waiting = Waiting::default();
        let mut turns = Vec::new();
        for _ in 0..5 {
            turns.push(waiting.join(Instant::now()));
            pass(100).await;
        }
        (waiting, turns)
    }

    fn order(waiting: &mut Waiting<u8>, now: Instant, turns: &mut [oneshot::Receiver<u8>]) -> Vec<Option<u8>> {
        let mut n = 0;
        while let Some((_, one)) = waiting.next(now, PATIENCE) {
            n += 1;
            one.send(n).unwrap();
        }
        turns.iter_mut().map(|turn| turn.try_recv().ok()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_comes_first_while_the_line_moves() {
        let (mut waiting, mut turns) = line().await;
        drop(turns.drain(..3));
        let now = Instant::now();
        assert_eq!(waiting.age(now), Duration::from_millis(200), "those that have left do not count");
        assert_eq!(order(&mut waiting, now, &mut turns), [Some(1), Some(2)]);
        assert!(!waiting.anybody());
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_comes_first_once_the_oldest_has_waited_too_long() {
        let (mut waiting, mut turns) = line().await;
        let now = Instant::now();
        // 500, 400 and 300 ms are too long: until those are gone, the newest are served.
        let (_, late) = waiting.overdue(now, PATIENCE).unwrap();
        late.send(99).unwrap();
        assert_eq!(order(&mut waiting, now, &mut turns), [Some(99), Some(4), Some(3), Some(2), Some(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_left_is_passed_over_at_either_end() {
        let (mut waiting, mut turns) = line().await;
        drop(turns.pop());
        drop(turns.remove(0));
        let now = Instant::now();
        assert_eq!(waiting.age(now), Duration::from_millis(400));
        assert_eq!(order(&mut waiting, now, &mut turns), [Some(3), Some(2), Some(1)]);
        assert!(waiting.overdue(now, PATIENCE).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_leave_do_not_pile_up() {
        let mut waiting = Waiting::<u8>::default();
        let stays = waiting.join(Instant::now());
        for _ in 0..1000 {
            drop(waiting.join(Instant::now()));
        }
        assert!(waiting.line.len() <= SHORT + 1, "{}", waiting.line.len());
        drop(stays);
        assert!(!waiting.anybody());
    }
}
