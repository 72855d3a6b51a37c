//! The turnstile of one worker: how many requests begin in one turn of its loop, and what becomes of those that cannot.
//!
//! A worker is one thread: whatever has arrived waits for whatever else has. Let in as they come, ten thousand requests are ten
//! thousand pieces of work in front of each answer of an upstream, so that every exchange takes a second, and an upstream that
//! may have 256 of them yields 256 answers a second while the worker is busy with refusals. So, once there is
//! much under way, only so many requests begin in one turn; the others wait in front, where they cost nothing. The
//! turns stay short, and what was let in is finished.
//!
//! Those in front wait in a [line](crate::waiting): in turn, and when the oldest of them has waited for too long, the newest first, while the
//! oldest are let in to be refused. Nobody is newer than who comes just then, so he does not wait at all: to wait costs a part of what an
//! answer does, since what has waited among thousands is in no cache any more when it is its turn. To refuse costs as well, so it is
//! done in a fixed proportion to what is served: more requests than that are left waiting, rather than have the refusals eat up what is
//! to be served. Logins and refreshes wait, too, and are never refused for it; the health answer passes by the line.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::waiting::Waiting;

/// Requests that begin in one turn: a few milliseconds of work.
const BATCH: usize = 128;

/// The same while the oldest have waited for too long: so few that all they touch stays in the caches of the processor until they are
/// answered, and that hardly any of them finds the connections to its upstream taken. With [`BATCH`] an answer costs a quarter more then.
const LATE: usize = 24;

/// Of those that have waited for too long, so many are refused in a turn.
const REFUSED: usize = 3;

/// So many that are urgent begin in a turn whoever waits: the health answer costs next to nothing, and whoever does not get it in
/// time ends the process.
const URGENT: usize = 16;

/// With fewer requests under way nobody waits: whatever is slow then is not what this worker has to do.
const FEW: i64 = 64;

/// For so long nobody may be refused before it is said that the overload is over.
const CALM: Duration = Duration::from_secs(2);

/// How a request came through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passage {
    /// How long it has waited.
    pub waited: Duration,
    /// Whether that was too long: if it is for a route, it is to be refused.
    pub overdue: bool,
}

/// Where requests wait for their turn at one worker.
#[derive(Debug, Default)]
pub struct Turnstile {
    /// How long is too long, microseconds; 0: nothing is.
    target: AtomicU64,
    /// Whether somebody waits.
    busy: AtomicBool,
    state: Mutex<State>,
    begun: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Requests that have begun in this turn.
    begun: usize,
    /// Those of them that passed by the line.
    urgent: usize,
    /// Whether the end of this turn will be noticed.
    turning: bool,
    /// Whether the oldest have waited for too long, so that the newest come first.
    late: bool,
    line: Waiting<Passage>,
    /// When somebody was refused last, while that has not been said to be over.
    refused: Option<Instant>,
}

impl State {
    /// How many may begin in this turn.
    const fn batch(&self) -> usize {
        if self.late { LATE } else { BATCH }
    }
}

impl Turnstile {
    /// Waits longer than this are too long; zero: none is.
    pub fn aim(&self, target: Duration) {
        self.target.store(u64::try_from(target.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn target(&self) -> Duration {
        match self.target.load(Ordering::Relaxed) {
            0 => Duration::MAX,
            micros => Duration::from_micros(micros),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Only the worker takes it, for a few instructions.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come, with so many others under way: `None` lets it in at once. One load while there are few; where it would have to
    /// wait it is asked whether it is `urgent`.
    pub fn enter(
        &self,
        in_flight: i64,
        urgent: &dyn Fn() -> bool,
    ) -> Option<impl Future<Output = Passage> + Send + use<>> {
        if in_flight < FEW && !self.busy.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.state();
        if !state.turning {
            state.turning = true;
            // Asked to run now, behind everything that is ready now: so it will run when this turn is over.
            self.begun.notify_one();
        }
        // Nobody is newer than who comes just now.
        if state.begun < state.batch() && (state.late || !state.line.anybody()) {
            state.begun += 1;
            return None;
        }
        if state.urgent < URGENT && urgent() {
            state.urgent += 1;
            return None;
        }
        self.busy.store(true, Ordering::Relaxed);
        let since = Instant::now();
        let turn: oneshot::Receiver<Passage> = state.line.join(since);
        // A worker that ends has nobody left to let anybody in; the connection ends with it.
        Some(async move { turn.await.unwrap_or_default() })
    }

    /// Lets requests in, turn by turn; never ends.
    pub async fn turn(&self) {
        loop {
            self.begun.notified().await;
            while self.next_turn(Instant::now()) {
                yield_now().await;
            }
        }
    }

    /// A turn is over: lets in whoever comes next. False when nobody waits.
    fn next_turn(&self, now: Instant) -> bool {
        let target = self.target();
        let mut state = self.state();
        // While the newest come first, room is left for those that come in the next turn, and what they did not take of the last
        // one is for the line; else the line comes first.
        let mut begun = if state.late { state.begun } else { 0 };
        while begun < state.batch() {
            let Some((since, one)) = state.line.next(now, target) else { break };
            let waited = now.saturating_duration_since(since);
            begun += usize::from(one.send(Passage { waited, overdue: false }).is_ok());
        }
        let mut refused = 0;
        while refused < REFUSED {
            let Some((since, one)) = state.line.overdue(now, target) else { break };
            let waited = now.saturating_duration_since(since);
            refused += usize::from(one.send(Passage { waited, overdue: true }).is_ok());
        }
        if refused > 0 && state.refused.replace(now).is_none() {
            tracing::warn!("overloaded: requests that have waited for too long are refused");
        }
        state.turning = state.line.anybody();
        state.late = state.line.age(now) > target;
        state.begun = if state.late { 0 } else { begun };
        state.urgent = 0;
        self.busy.store(state.turning, Ordering::Relaxed);
        state.turning
    }

    /// How long the oldest has been waiting; to be asked now and then.
    pub fn age(&self) -> Duration {
        let now = Instant::now();
        let mut state = self.state();
        if state.refused.is_some_and(|last| now.saturating_duration_since(last) > CALM) {
            state.refused = None;
            tracing::info!("no longer overloaded");
        }
        state.line.age(now)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt as _;
    use tokio::task::unconstrained;

    use super::*;

    const MUCH: i64 = 1000;

    type Turn = Pin<Box<dyn Future<Output = Passage> + Send>>;

    fn turnstile(target: Duration) -> Turnstile {
        let turnstile = Turnstile::default();
        turnstile.aim(target);
        turnstile
    }

    /// So many requests come: those that have to wait.
    fn come(turnstile: &Turnstile, n: usize) -> Vec<Turn> {
        (0..n).filter_map(|_| turnstile.enter(MUCH, &|| false).map(|turn| Box::pin(turn) as Turn)).collect()
    }

    /// What those got that were let in, with their places.
    fn got(turns: &mut [Option<Turn>]) -> Vec<(usize, bool)> {
        let mut got = Vec::new();
        for (n, turn) in turns.iter_mut().enumerate() {
            // As if each was in a task of its own: one task may not take so many turns in a row.
            if let Some(passage) = turn.as_mut().and_then(|turn| unconstrained(turn).now_or_never()) {
                got.push((n, passage.overdue));
                *turn = None;
            }
        }
        got
    }

    #[tokio::test(start_paused = true)]
    async fn with_few_under_way_nobody_waits() {
        let turnstile = turnstile(Duration::from_millis(250));
        assert!((0..10_000).all(|_| turnstile.enter(FEW - 1, &|| false).is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_begin_in_a_turn_and_the_others_in_the_next_ones_in_their_order() {
        let turnstile = turnstile(Duration::from_millis(250));
        let mut turns: Vec<Option<Turn>> = come(&turnstile, 3 * BATCH).into_iter().map(Some).collect();
        assert_eq!(turns.len(), 2 * BATCH, "the first have begun at once");
        assert!(got(&mut turns).is_empty());
        let last = turnstile.enter(0, &|| false);
        assert!(last.is_some(), "nobody passes those that wait, also when little is under way");
        assert!(turnstile.next_turn(Instant::now()));
        assert_eq!(got(&mut turns), (0..BATCH).map(|n| (n, false)).collect::<Vec<_>>());
        assert!(turnstile.next_turn(Instant::now()), "the last one");
        assert_eq!(got(&mut turns), (BATCH..2 * BATCH).map(|n| (n, false)).collect::<Vec<_>>());
        drop(last);
        assert!(!turnstile.next_turn(Instant::now()));
        assert!(come(&turnstile, BATCH).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_oldest_have_waited_too_long_the_newest_are_served_and_a_part_of_the_oldest_refused() {
        let turnstile = turnstile(Duration::from_millis(250));
        let mut turns: Vec<Option<Turn>> = come(&turnstile, 6 * BATCH).into_iter().map(Some).collect();
        let all = turns.len();
        tokio::time::advance(Duration::from_millis(251)).await;
        turnstile.next_turn(Instant::now());
        let wanted: Vec<_> = (0..REFUSED).map(|n| (n, true)).chain((all - BATCH..all).map(|n| (n, false))).collect();
        assert_eq!(got(&mut turns), wanted);
        assert_eq!(turnstile.age(), Duration::from_millis(251));
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_newest_are_served_whoever_comes_is_the_newest_and_the_line_has_what_is_left() {
        let turnstile = turnstile(Duration::from_millis(250));
        let mut turns: Vec<Option<Turn>> = come(&turnstile, 6 * BATCH).into_iter().map(Some).collect();
        tokio::time::advance(Duration::from_millis(251)).await;
        turnstile.next_turn(Instant::now());
        got(&mut turns);
        let few = LATE / 4;
        assert!(come(&turnstile, few).is_empty(), "let in at once");
        turnstile.next_turn(Instant::now());
        let let_in = got(&mut turns);
        assert_eq!(let_in.iter().filter(|(_, overdue)| !overdue).count(), LATE - few);
        assert_eq!(come(&turnstile, LATE + few).len(), few, "no more than a turn takes");
        // The oldest are gone, and what is left has not waited for too long: in turn again.
        turns.clear();
        let _line = come(&turnstile, BATCH);
        turnstile.next_turn(Instant::now());
        assert_eq!(come(&turnstile, 1).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_that_are_urgent_pass_by_the_line() {
        let turnstile = turnstile(Duration::from_millis(250));
        let _line = come(&turnstile, 3 * BATCH);
        let passed = || (0..2 * URGENT).filter(|_| turnstile.enter(MUCH, &|| true).is_none()).count();
        assert_eq!(passed(), URGENT);
        turnstile.next_turn(Instant::now());
        assert_eq!(passed(), URGENT, "in the next turn again");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_target_all_are_served_in_their_order_however_long_they_wait() {
        let turnstile = turnstile(Duration::ZERO);
        let mut turns: Vec<Option<Turn>> = come(&turnstile, 3 * BATCH).into_iter().map(Some).collect();
        tokio::time::advance(Duration::from_secs(100)).await;
        turnstile.next_turn(Instant::now());
        assert_eq!(got(&mut turns), (0..BATCH).map(|n| (n, false)).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_gone_away_takes_nobodys_turn() {
        let turnstile = turnstile(Duration::from_millis(250));
        let mut turns: Vec<Option<Turn>> = come(&turnstile, 4 * BATCH).into_iter().map(Some).collect();
        turns[..2 * BATCH].fill_with(|| None);
        turnstile.next_turn(Instant::now());
        assert_eq!(got(&mut turns).len(), BATCH);
        assert!(!turnstile.next_turn(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_lets_everybody_in() {
        let turnstile = std::sync::Arc::new(turnstile(Duration::from_millis(250)));
        let turning = std::sync::Arc::clone(&turnstile);
        let task = tokio::spawn(async move { turning.turn().await });
        let turns = come(&turnstile, 5 * BATCH);
        assert_eq!(futures_util::future::join_all(turns).await.len(), 4 * BATCH);
        task.abort();
    }
}
