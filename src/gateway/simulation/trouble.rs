//! What goes wrong, and when: drawn from the seed, done to the network, remembered for the judgement.

use turmoil::Sim;

use super::dice::Dice;
use super::world::{FAR, PHONES, STORE, World, gateway_name};

/// Troubles begin after this, and are over by [`LAST`]; ms.
const FIRST: u64 = 300;
pub(super) const LAST: u64 = 14_000;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing gets through between two hosts.
    Apart,
    /// Only one way.
    OneWay { towards: bool },
    /// What is sent waits, and arrives when it is over.
    Held,
    /// It takes so many ms.
    Slow(u64),
    /// A host is dead.
    Dead,
    /// As [`Kind::Dead`], and what was stored is gone.
    Empty,
}

/// One trouble: of a link of a gateway, or of a host.
#[derive(Debug, Clone)]
struct Trouble {
    kind: Kind,
    /// `None`: every gateway has it.
    gateway: Option<usize>,
    hosts: (String, Option<&'static str>),
    from: u64,
    to: u64,
    begun: bool,
    mended: bool,
}

impl Trouble {
    fn is_of(&self, gateway: usize) -> bool {
        self.gateway.is_none_or(|of| of == gateway)
    }

    /// Whether nothing that was sent during it can be heard from the store.
    fn cuts_off(&self) -> bool {
        let of_store = self.hosts.0 == STORE || self.hosts.1 == Some(STORE);
        of_store && !matches!(self.kind, Kind::Slow(_))
    }
}

/// All of a seed.
#[derive(Debug, Default)]
pub(super) struct Troubles(Vec<Trouble>);

impl Troubles {
    /// One seed in eight has none.
    pub(super) fn drawn(dice: &mut Dice, gateways: usize) -> Self {
        let mut drawn: Vec<Trouble> = Vec::new();
        let wanted = if dice.one_in(8) { 0 } else { dice.between(1, 7) };
        for _ in 0..wanted {
            let gateway = dice.below(gateways);
            let link = |to| (gateway_name(gateway), Some(to));
            let (kind, hosts, gateway) = match dice.below(16) {
                0..6 => (Self::of_link(dice), link(STORE), Some(gateway)),
                6..8 => (Self::of_link(dice), link(FAR), Some(gateway)),
                8..10 => (Self::of_link(dice), link(PHONES), Some(gateway)),
                10..13 => (Kind::Dead, (gateway_name(gateway), None), Some(gateway)),
                13 => (Kind::Dead, (STORE.to_owned(), None), None),
                14 => (Kind::Empty, (STORE.to_owned(), None), None),
                _ => (Kind::Dead, (FAR.to_owned(), None), None),
            };
            let long = if dice.one_in(3) { 7_000 } else { 1_500 };
            let from = dice.between(FIRST, LAST - 2_000);
            let to = (from + dice.between(30, long)).min(LAST);
            let clashes = |other: &Trouble| other.hosts == hosts && other.from <= to + 500 && from <= other.to + 500;
            if !drawn.iter().any(clashes) {
                drawn.push(Trouble { kind, gateway, hosts, from, to, begun: false, mended: false });
            }
        }
        Self(drawn)
    }

    fn of_link(dice: &mut Dice) -> Kind {
        match dice.below(6) {
            0 | 1 => Kind::Apart,
            2 => Kind::OneWay { towards: true },
            3 => Kind::OneWay { towards: false },
            4 => Kind::Held,
            _ => Kind::Slow(dice.between(100, 900)),
        }
    }

    /// Whether the gateway has none between two times.
    pub(super) fn none(&self, gateway: usize, from: u64, to: u64) -> bool {
        !self.0.iter().any(|trouble| trouble.is_of(gateway) && trouble.from <= to && from <= trouble.to)
    }

    /// Whether there is none between two times.
    pub(super) fn none_at_all(&self, from: u64, to: u64) -> bool {
        !self.0.iter().any(|trouble| trouble.from <= to && from <= trouble.to)
    }

    /// When the last one of this gateway was over by `now`; `None` when one is under way.
    pub(super) fn last(&self, gateway: usize, now: u64) -> Option<u64> {
        let mut last = 0;
        for trouble in self.0.iter().filter(|trouble| trouble.is_of(gateway) && trouble.from <= now) {
            if now <= trouble.to {
                return None;
            }
            last = last.max(trouble.to);
        }
        Some(last)
    }

    /// For how long the gateway has heard nothing from the store at `now`, for sure.
    pub(super) fn cut_off_for(&self, gateway: usize, now: u64) -> Option<u64> {
        let cuts = self.0.iter().filter(|trouble| trouble.is_of(gateway) && trouble.cuts_off());
        cuts.filter(|trouble| trouble.from <= now && now <= trouble.to).map(|trouble| now - trouble.from).max()
    }

    /// When the store was back that lost everything then.
    pub(super) fn end_of_loss(&self, at: u64) -> u64 {
        let of = |trouble: &&Trouble| trouble.kind == Kind::Empty && trouble.from <= at && at <= trouble.to + 100;
        self.0.iter().find(of).map_or(at, |trouble| trouble.to)
    }

    /// Does what is due; the lines say what. True when the store has just lost everything.
    pub(super) fn work(&mut self, sim: &mut Sim<'_>, world: &World, told: &mut Vec<String>) -> bool {
        let now = world.now();
        let mut lost = false;
        for trouble in &mut self.0 {
            let (a, b) = (trouble.hosts.0.as_str(), trouble.hosts.1.unwrap_or_default());
            if !trouble.begun && trouble.from <= now {
                trouble.begun = true;
                told.push(format!("{now:>6} {:?} {a} {b} until {}", trouble.kind, trouble.to));
                match trouble.kind {
                    Kind::Apart => sim.partition(a, b),
                    Kind::OneWay { towards: true } => sim.partition_oneway(a, b),
                    Kind::OneWay { towards: false } => sim.partition_oneway(b, a),
                    Kind::Held => sim.hold(a, b),
                    Kind::Slow(ms) => sim.set_link_latency(a, b, std::time::Duration::from_millis(ms)),
                    Kind::Dead => {
                        sim.crash(a);
                        if a == STORE {
                            world.store.crash();
                        }
                    }
                    Kind::Empty => {
                        sim.crash(a);
                        world.store.lose_everything();
                        lost = true;
                    }
                }
            }
            if !trouble.mended && trouble.to <= now {
                trouble.mended = true;
                told.push(format!("{now:>6} over: {:?} {a} {b}", trouble.kind));
                match trouble.kind {
                    Kind::Apart | Kind::OneWay { .. } => sim.repair(a, b),
                    Kind::Held => sim.release(a, b),
                    Kind::Slow(_) => sim.set_link_latency(a, b, super::LATENCY),
                    Kind::Dead | Kind::Empty => sim.bounce(a),
                }
            }
        }
        lost
    }
}
