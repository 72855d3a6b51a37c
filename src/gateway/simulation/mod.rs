//! Two or three gateways, one Redis, and a network that drops, delays and parts; hosts that die at any moment: a seed each time
//! ([turmoil](https://docs.rs/turmoil)). A seed decides what goes wrong and who asks for what; threads of the real world that read
//! key files may move an answer by a step of the simulated clock, so that a seed is replayed closely and not to the millisecond.
//!
//! What runs is our own: composition, endpoints, tokens, news between instances, and the store's Redis client with its
//! scripts, over a network that loses requests before they are done and answers afterwards. Played are the Redis server
//! ([`simulated`](crate::store::redis::simulated), which passes the suite of every store), the database of members, and
//! WeChat. `WXGATE_TEST_SEED=7` replays one seed with all that was done; `WXGATE_TEST_SEEDS=5000` asks for so many;
//! `WXGATE_TEST_SKEW=4000` sets the gateways' clocks wrong by up to so many ms in each seed. Without it they are right in one
//! half of the seeds, and up to two seconds wrong in the other; in one half the keys lie in a folder, in the other in the store.

mod book;
mod dice;
mod far;
mod instance;
mod known;
mod phones;
mod trouble;
mod world;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use book::Moment;
use dice::Dice;
use far::Near;
use phones::Phone;
use trouble::Troubles;
use world::{FAR, PHONES, STORE, TICK, World, gateway_name};

use crate::store::redis::simulated::Defect;
use crate::wechat::client::played;

/// Seeds of a usual run; a build without optimisation takes ten times as long for each.
const SEEDS: u64 = if cfg!(debug_assertions) { 30 } else { 500 };

/// In so many seeds a defect must show.
const FOUND_WITHIN: u64 = 300;

/// How long a message takes when all is well.
const LATENCY: Duration = Duration::from_millis(2);

const REDIS_PORT: u16 = 6379;

/// What became of one seed.
struct Lived {
    told: Vec<String>,
    broken: Option<String>,
    counts: [usize; 3],
}

/// Lives through one seed.
fn live(seed: u64, defect: Option<Defect>) -> Lived {
    let mut dice = Dice::new(seed);
    let world = World::new(seed, &mut dice, defect);
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .enable_random_order()
        .tick_duration(TICK)
        .min_message_latency(Duration::ZERO)
        .max_message_latency(LATENCY)
        .tcp_capacity(1 << 16)
        .simulation_duration(Duration::from_secs(600))
        .build();
    played::play(Some(Arc::new(Near(Arc::clone(&world)))));

    let store = world.store.clone();
    sim.host(STORE, move || {
        let store = store.clone();
        async move {
            let listener = turmoil::net::TcpListener::bind(("0.0.0.0", REDIS_PORT)).await?;
            loop {
                let (stream, _) = listener.accept().await?;
                let store = store.clone();
                tokio::spawn(async move { store.serve(stream).await });
            }
        }
    });
    let far = Arc::clone(&world);
    sim.host(FAR, move || far::serve(Arc::clone(&far)));
    for n in 0..world.gateways {
        let world = Arc::clone(&world);
        sim.host(gateway_name(n), move || instance::run(Arc::clone(&world), n));
    }
    world.book().troubles = Troubles::drawn(&mut dice, world.gateways);
    let (phones, people) = (Phone::new(&world), dice.clone());
    let users = 3;
    sim.client(PHONES, async move {
        let mut people = people;
        let world = phones.world();
        for _ in 0..users {
            world.book().add_user();
        }
        let mut lives = tokio::task::JoinSet::new();
        for user in 0..users {
            lives.spawn(phones.clone().live(user, Dice::new(people.next())));
        }
        lives.spawn(phones.clone().operate(users, Dice::new(people.next())));
        while let Some(lived) = lives.join_next().await {
            lived?;
        }
        phones.reckon(people).await;
        Ok(())
    });
    loop {
        let over = sim.step();
        world.tick();
        let mut book = world.book();
        match over {
            Ok(over) if over || book.broken.is_some() => break,
            Ok(_) => {}
            Err(error) => {
                book.broken.get_or_insert(format!("a host ended: {error}"));
                break;
            }
        }
        let (mut troubles, mut told) = (std::mem::take(&mut book.troubles), std::mem::take(&mut book.told));
        if troubles.work(&mut sim, &world, &mut told) {
            book.store_lost_everything(Moment { ms: world.now(), order: world.next() });
        }
        (book.troubles, book.told) = (troubles, told);
    }
    drop(sim);
    played::play(None);
    let mut book = world.book();
    Lived { told: std::mem::take(&mut book.told), broken: book.broken.take(), counts: book.counts }
}

#[expect(clippy::disallowed_methods, reason = "a seed to replay, or more of them, can be asked for")]
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn whatever_the_network_does_every_promise_is_kept() {
    if let Some(seed) = asked("WXGATE_TEST_SEED") {
        let lived = live(seed, None);
        println!("{}", lived.told.join("\n"));
        assert_eq!(lived.broken, None, "seed {seed}");
        return;
    }
    let first = asked("WXGATE_TEST_FIRST_SEED").unwrap_or(0);
    let seeds = first..first + asked("WXGATE_TEST_SEEDS").unwrap_or(SEEDS);
    let (broken, [done, refused, unknown]) = live_all(seeds.clone(), None);
    println!("{} seeds: {done} calls done, {refused} refused, {unknown} without an answer or 5xx", seeds.count());
    let list: Vec<String> = broken.iter().map(|(seed, what)| format!("WXGATE_TEST_SEED={seed}  {what}")).collect();
    assert!(list.is_empty(), "{} seeds broke a promise:\n{}", list.len(), list.join("\n"));
}

/// Lives through these seeds, some at once; with a defect only until it is found. Returns those that broke a promise, and how
/// many calls were made.
fn live_all(seeds: Range<u64>, defect: Option<Defect>) -> (Vec<(u64, String)>, [u64; 3]) {
    let next = AtomicU64::new(seeds.start);
    let totals = [const { AtomicU64::new(0) }; 3];
    let broken = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || (defect.is_some() && !broken.lock().unwrap().is_empty()) {
                        return;
                    }
                    let lived = live(seed, defect);
                    for (total, count) in totals.iter().zip(lived.counts) {
                        total.fetch_add(count as u64, Ordering::Relaxed);
                    }
                    broken.lock().unwrap().extend(lived.broken.map(|what| (seed, what)));
                }
            });
        }
    });
    let mut broken = broken.into_inner().unwrap();
    broken.sort();
    (broken, totals.map(AtomicU64::into_inner))
}

#[test]
fn every_defect_is_found() {
    let missed: Vec<Defect> = Defect::ALL
        .into_iter()
        .filter(|defect| {
            let (broken, _) = live_all(0..FOUND_WITHIN, Some(*defect));
            println!("{defect:?}: {:?}", broken.first());
            broken.is_empty()
        })
        .collect();
    assert!(missed.is_empty(), "not found in {FOUND_WITHIN} seeds: {missed:?}");
}
