//! Who waits for whom.

use std::future::Future;

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

#[test]
fn a_session_that_ends_while_others_go_first_is_over() {
    on_one_thread(async {
        let (authenticator, headers) = (authenticator(Algorithm::Es256), minted(Algorithm::Es256));
        let Ok(Some(Shown::Unsettled(unsettled))) = authenticator.authenticate(&headers, None) else {
            panic!("it was known")
        };
        assert!(!format!("{unsettled:?}").contains('.'));
        authenticator.revocations.revoke_session(&grant(NOW).session_id, NOW.plus(std::time::Duration::from_secs(9)));
        assert_eq!(authenticator.settle(unsettled).await.unwrap_err().code(), Code::TokenRevoked);
        let forged = HeaderMap::from_iter([(AUTHORIZATION, "Bearer a.b.c".parse().unwrap())]);
        assert_eq!(ask(&authenticator, &forged).await.unwrap_err().code(), Code::TokenInvalid);
    });
}
