//! Who waits for whom.

use std::future::Future;
use std::pin::pin;
use std::task::Waker;
use std::time::Duration;

use http::header::AUTHORIZATION;
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::clock::Timestamp;
use crate::config::Algorithm;
use crate::metrics::Metrics;
use crate::token::fixture::{grant, ring, section};
use crate::token::mint::Minter;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn clock() -> Clock {
    Clock::manual(NOW)
}

fn authenticator(algorithm: Algorithm) -> Arc<Authenticator> {
    Arc::new(Authenticator {
        verifier: Arc::new(Verifier::new(ring(), &section(algorithm), clock())),
        cache: RecentlyVerified::new(Arc::default()),
        opaque: None,
        revocations: Arc::new(Revocations::new()),
        renewals: Arc::default(),
        pseudonyms: Pseudonyms::new(&[0; 32]),
        clock: clock(),
        shard: Metrics::default().shard(),
        accept_bare: false,
        cookies: cookie::names(false),
    })
}

/// Headers with a new token.
fn minted(algorithm: Algorithm) -> HeaderMap {
    let token = Minter::new(ring(), &section(algorithm), clock()).mint(&grant(NOW)).unwrap();
    HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {}", token.token.expose()).parse().unwrap())])
}

/// Who the headers are of, as a connection's task finds out.
async fn ask(authenticator: &Authenticator, headers: &HeaderMap) -> Result<Arc<Principal>, Problem> {
    match authenticator.authenticate(headers, None)?.expect("there is a token") {
        Shown::By(principal) => Ok(principal),
        Shown::Unsettled(unsettled) => authenticator.settle(unsettled).await,
    }
}

fn misses(authenticator: &Authenticator) -> u64 {
    authenticator.shard.token_misses.get()
}

fn on_one_thread<F: Future>(what: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    LocalSet::new().block_on(&runtime, what)
}

#[test]
fn who_is_known_goes_first_and_those_who_are_new_go_on_together() {
    on_one_thread(async {
        let authenticator = authenticator(Algorithm::Es256);
        let known = minted(Algorithm::Es256);
        ask(&authenticator, &known).await.unwrap();
        let before = misses(&authenticator);

        let (said, mut saying) = tokio::sync::mpsc::unbounded_channel();
        for (who, headers) in [("new", minted(Algorithm::Es256)), ("new", minted(Algorithm::Es256)), ("known", known)] {
            let (authenticator, said) = (Arc::clone(&authenticator), said.clone());
            spawn_local(async move {
                ask(&authenticator, &headers).await.unwrap();
                said.send((who, misses(&authenticator) - before)).unwrap();
            });
        }
        drop(said);
        let mut order = Vec::new();
        while let Some(one) = saying.recv().await {
            order.push(one);
        }
        assert_eq!(order, [("known", 0), ("new", 2), ("new", 2)]);
    });
}

#[test]
fn of_several_requests_with_one_new_token_one_has_it_checked() {
    on_one_thread(async {
        let (authenticator, headers) = (authenticator(Algorithm::Es256), minted(Algorithm::Es256));
        let asked = (0..5).map(|_| ask(&authenticator, &headers));
        for principal in futures_util::future::join_all(asked).await {
            assert_eq!(principal.unwrap().claims.openid, grant(NOW).openid);
        }
        assert_eq!((misses(&authenticator), authenticator.shard.token_hits.get()), (1, 4));
    });
}

#[test]
fn a_token_that_is_checked_quickly_is_checked_at_once() {
    let (authenticator, headers) = (authenticator(Algorithm::Hs256), minted(Algorithm::Hs256));
    for _ in 0..2 {
        assert!(matches!(authenticator.authenticate(&headers, None), Ok(Some(Shown::By(_)))));
    }
    assert_eq!(misses(&authenticator), 1);
}

/// The token of nobody yet, and what it is asked with.
fn unsettled(authenticator: &Authenticator, headers: &HeaderMap) -> Unsettled {
    match authenticator.authenticate(headers, None) {
        Ok(Some(Shown::Unsettled(unsettled))) => unsettled,
        other => panic!("{other:?}"),
    }
}

/// Who it is after all, if `happens` while it waits for so many turns.
fn settled_after(authenticator: &Authenticator, turns: usize, happens: impl Fn()) -> Result<Arc<Principal>, Problem> {
    let unsettled = unsettled(authenticator, &minted(Algorithm::Es256));
    assert_eq!(format!("{unsettled:?}"), "Unverified(Token(…))");
    let mut settling = pin!(authenticator.settle(unsettled));
    let mut poll = || settling.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    for _ in 0..turns {
        assert!(poll().is_pending());
    }
    happens();
    loop {
        if let Poll::Ready(settled) = poll() {
            return settled;
        }
    }
}

#[test]
fn a_session_that_ends_while_others_go_first_is_over() {
    for turns in [1, 2] {
        let authenticator = authenticator(Algorithm::Es256);
        let (session, until) = (grant(NOW).session_id, NOW.plus(Duration::from_secs(9)));
        let refused =
            settled_after(&authenticator, turns, || authenticator.revocations.revoke_session(&session, until));
        assert_eq!(refused.unwrap_err().code(), Code::TokenRevoked, "after {turns} turns");
    }
}

#[test]
fn a_token_that_ends_while_others_go_first_is_over() {
    for turns in [1, 2] {
        let authenticator = authenticator(Algorithm::Es256);
        let life = section(Algorithm::Es256).access_ttl;
        let refused = settled_after(&authenticator, turns, || authenticator.clock.advance(life));
        assert_eq!(refused.unwrap_err().code(), Code::TokenExpired, "after {turns} turns");
    }
}

#[test]
fn roles_that_change_while_others_go_first_are_the_new_ones() {
    for turns in [1, 2] {
        let authenticator = authenticator(Algorithm::Es256);
        let (member, roles, until) = (grant(NOW).member_id, ["guest".to_owned()], NOW.plus(Duration::from_secs(9)));
        let change = || authenticator.revocations.set_roles(&member, &roles, NOW, until);
        assert_eq!(settled_after(&authenticator, turns, change).unwrap().claims.roles, roles, "after {turns} turns");
    }
}

#[test]
fn what_has_not_the_shape_of_a_token_waits_for_nobody() {
    let authenticator = authenticator(Algorithm::Es256);
    for bad in ["a", "a.b", "a.b.c.d"] {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {bad}").parse().unwrap())]);
        assert_eq!(authenticator.authenticate(&headers, None).unwrap_err().code(), Code::TokenInvalid);
    }
    on_one_thread(async {
        let forged = HeaderMap::from_iter([(AUTHORIZATION, "Bearer a.b.c".parse().unwrap())]);
        assert_eq!(ask(&authenticator, &forged).await.unwrap_err().code(), Code::TokenInvalid);
    });
}
