//! Random sequences of calls, compared with a model that is small enough to be seen to be right.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::runtime::Runtime;

use super::{GRACE, START, login, token};
use crate::clock::Timestamp;
use crate::store::{NewSession, RefreshUse, Rotation, Session, Sessions};

/// One call. Numbers choose among what is there, modulo its count.
#[derive(Debug, Clone)]
enum Step {
    /// A login of one of two members; lives so many seconds, its refresh tokens so many.
    Open {
        member: usize,
        session_ttl: u64,
    },
    /// A token of this session, so many generations back from its newest one.
    Rotate {
        session: usize,
        back: usize,
        refresh_ttl: u64,
    },
    /// A token of this session is renewed; the new one lives so many seconds.
    Prolong {
        session: usize,
        seconds: u64,
    },
    End {
        session: usize,
    },
    EndAll {
        member: usize,
    },
    Pass {
        seconds: u64,
    },
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..2_usize, 50..400_u64).prop_map(|(member, session_ttl)| Step::Open { member, session_ttl }),
        8 => (0..4_usize, prop_oneof![4 => Just(0), 3 => Just(1), 2 => 2..4_usize], 40..200_u64)
            .prop_map(|(session, back, refresh_ttl)| Step::Rotate { session, back, refresh_ttl }),
        2 => (0..4_usize, 40..300_u64).prop_map(|(session, seconds)| Step::Prolong { session, seconds }),
        1 => (0..4_usize).prop_map(|session| Step::End { session }),
        1 => (0..2_usize).prop_map(|member| Step::EndAll { member }),
        4 => prop_oneof![1..10_u64, 25..35_u64, 100..300_u64].prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Sweep),
    ];
    vec(step, 1..40)
}

struct Token {
    name: String,
    expires_at: Timestamp,
    used_at: Option<Timestamp>,
}

struct Family {
    session: Session,
    ended: bool,
    access_until: Timestamp,
    /// Each is the successor of the one before it.
    tokens: Vec<Token>,
}

/// The model: sessions with their tokens in order, and revocations.
#[derive(Default)]
struct Model {
    families: Vec<Family>,
    revoked: HashMap<String, Timestamp>,
}

impl Model {
    fn end(&mut self, index: usize, now: Timestamp, until: Timestamp) -> bool {
        let family = &mut self.families[index];
        let was_live = !family.ended && family.session.expires_at > now;
        family.ended |= was_live;
        let until = until.max(family.access_until);
        let until_now = self.revoked.entry(family.session.session_id.as_str().into()).or_insert(until);
        *until_now = until.max(*until_now);
        was_live
    }

    fn rotate(&mut self, index: usize, generation: usize, successor: &str, use_: RefreshUse) -> Rotation {
        let family = &mut self.families[index];
        let session = family.session.clone();
        if family.tokens[generation].expires_at <= use_.now || session.expires_at <= use_.now {
            return Rotation::Unknown;
        }
        if family.ended {
            return Rotation::Ended;
        }
        let access_until = family.access_until.max(use_.revoked_until.min(session.expires_at));
        let Some(used_at) = family.tokens[generation].used_at else {
            family.access_until = access_until;
            family.tokens[generation].used_at = Some(use_.now);
            let expires_at = use_.refresh_expires_at.min(session.expires_at);
            family.tokens.push(Token { name: successor.into(), expires_at, used_at: None });
            return Rotation::Rotated { session, refresh_expires_at: expires_at };
        };
        let next = &family.tokens[generation + 1];
        if use_.now < used_at.plus(use_.grace) && next.used_at.is_none() && next.expires_at > use_.now {
            let refresh_expires_at = next.expires_at;
            family.access_until = access_until;
            return Rotation::Rotated { session, refresh_expires_at };
        }
        self.end(index, use_.now, use_.revoked_until);
        Rotation::Reused(session)
    }
}

/// Runs random sequences on `store` and the model. All share the store: names keep them apart.
pub(in crate::store) fn agrees(runtime: &Runtime, store: &dyn Sessions) {
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let case = std::cell::Cell::new(0_u32);
    let result = runner.run(&steps(), |steps| {
        case.set(case.get() + 1);
        runtime.block_on(replay(store, &format!("case{}", case.get()), &steps))
    });
    if let Err(e) = result {
        panic!("{e}");
    }
}

async fn replay(store: &dyn Sessions, case: &str, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    let mut now = START;
    for step in steps {
        let until = now.plus(Duration::from_secs(120));
        let count = model.families.len().max(1);
        match *step {
            Step::Pass { seconds } => now = now.plus(Duration::from_secs(seconds)),
            Step::Sweep => drop(store.sweep(now).await.unwrap()),
            Step::Open { member, session_ttl } => {
                let new = opening(case, member, model.families.len(), now, session_ttl);
                let tokens = vec![Token {
                    name: format!("{case}-{}-0", model.families.len()),
                    expires_at: new.refresh_expires_at.min(new.session.expires_at),
                    used_at: None,
                }];
                let access_until = new.access_until.min(new.session.expires_at);
                model.families.push(Family { session: new.session.clone(), ended: false, access_until, tokens });
                store.open(new).await.unwrap();
            }
            Step::Rotate { session, back, refresh_ttl } if !model.families.is_empty() => {
                let index = session % count;
                let tokens = &model.families[index].tokens;
                let generation = (tokens.len() - 1).saturating_sub(back);
                let shown = tokens[generation].name.clone();
                let successor = format!("{case}-{index}-{}", generation + 1);
                let refresh_expires_at = now.plus(Duration::from_secs(refresh_ttl));
                // Now longer than what a session is ended with, now shorter.
                let revoked_until = now.plus(Duration::from_secs(2 * refresh_ttl));
                let use_ = RefreshUse { now, grace: GRACE, refresh_expires_at, revoked_until };
                let expected = model.rotate(index, generation, &successor, use_);
                let done = store.rotate(token(&shown), token(&successor), use_).await.unwrap();
                prop_assert_eq!(done, expected);
            }
            Step::Prolong { session, seconds } if !model.families.is_empty() => {
                let Family { session, ended, access_until, .. } = &mut model.families[session % count];
                let prolonged = now.plus(Duration::from_secs(seconds));
                let live = !*ended && session.expires_at > now;
                if live {
                    *access_until = prolonged.min(session.expires_at).max(*access_until);
                }
                let found = store.prolong(&session.session_id, now, prolonged).await.unwrap();
                prop_assert_eq!(found.as_ref(), live.then_some(&*session));
            }
            Step::End { session } if !model.families.is_empty() => {
                let id = model.families[session % count].session.session_id.clone();
                let expected = model.end(session % count, now, until);
                prop_assert_eq!(store.end(&id, now, until).await.unwrap(), expected);
            }
            Step::EndAll { member } => {
                let of = opening(case, member, 0, now, 1).session;
                let mut expected = BTreeSet::new();
                for index in 0..model.families.len() {
                    let Family { session, ended, .. } = &model.families[index];
                    if session.member_id == of.member_id && !ended && session.expires_at > now {
                        expected.insert(session.session_id.clone());
                        model.end(index, now, until);
                    }
                }
                let ended = store.end_all(&of.member_id, &of.appid, None, now, until).await.unwrap();
                prop_assert_eq!(ended.into_iter().collect::<BTreeSet<_>>(), expected);
            }
            Step::Rotate { .. } | Step::Prolong { .. } | Step::End { .. } => {}
        }
        compare(store, &model, now).await?;
    }
    Ok(())
}

async fn compare(store: &dyn Sessions, model: &Model, now: Timestamp) -> Result<(), TestCaseError> {
    let revoked: HashMap<_, _> =
        store.revoked(now).await.unwrap().into_iter().map(|r| (r.session_id.as_str().to_owned(), r.until)).collect();
    for Family { session, ended, tokens, .. } in &model.families {
        let live = !ended && session.expires_at > now;
        let found = store.find(&session.session_id, now).await.unwrap();
        prop_assert_eq!(found.as_ref(), live.then_some(session));
        for Token { name, expires_at, .. } in tokens {
            let found = store.find_by_refresh(token(name), now).await.unwrap();
            prop_assert_eq!(found.as_ref(), (live && *expires_at > now).then_some(session));
        }
        let id = session.session_id.as_str();
        let until = model.revoked.get(id).filter(|&&until| until > now);
        prop_assert_eq!(revoked.get(id), until);
    }
    Ok(())
}

/// Login number `index` of a case; members and tokens have the case in their names.
fn opening(case: &str, member: usize, index: usize, now: Timestamp, session_ttl: u64) -> NewSession {
    let mut new = login(&format!("{case}-{member}"), now);
    new.session.expires_at = now.plus(Duration::from_secs(session_ttl));
    new.refresh_expires_at = now.plus(Duration::from_secs(100));
    new.access_until = now.plus(Duration::from_secs(250));
    new.refresh = token(&format!("{case}-{index}-0"));
    new
}
