//! Calls that share a statement: how many do, and that none gets what came of another's.

use futures_util::future::join_all;

use super::super::Postgres;
use super::server::PostgresServer;
use super::{database, database_in};
use crate::ids::{AppId, OpenId};
use crate::store::contract::START;
use crate::store::{Error, Members as _, SignIn};

fn person(name: &str) -> SignIn {
    let (appid, openid) = (AppId::parse("wx1").unwrap(), OpenId::parse(name).unwrap());
    SignIn { appid, openid, unionid: None, at: START, merge: false }
}

#[tokio::test]
async fn sign_ins_that_arrive_together_share_a_commit() {
    let store = Postgres::open(&database().await).await.unwrap();
    let people: Vec<SignIn> = (0..100).map(|n| person(&format!("p{n}"))).collect();
    for signed_in in join_all(people.into_iter().map(|who| store.sign_in(who))).await {
        assert!(signed_in.unwrap().is_new);
    }
    assert_eq!(store.sign_ins(), 100);
    // On one thread all hundred are queued before the first statement is sent.
    assert!(store.commits() <= 4, "{} statements", store.commits());
    store.sign_in(person("p1")).await.unwrap();
    assert_eq!(store.sign_ins(), 101);
}

#[tokio::test]
async fn what_the_server_refuses_of_one_is_nobody_elses_failure() {
    let store = Postgres::open(&database().await).await.unwrap();
    let refusing = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN IF NEW.openid = 'refused' THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$;
                    CREATE TRIGGER refuse BEFORE INSERT ON members FOR EACH ROW EXECUTE FUNCTION refuse()";
    store.client().await.unwrap().batch_execute(refusing).await.unwrap();
    let names: Vec<String> = (0..20).map(|n| if n == 7 { "refused".into() } else { format!("p{n}") }).collect();
    let outcomes = join_all(names.iter().map(|name| store.sign_in(person(name)))).await;
    for (name, outcome) in names.iter().zip(outcomes) {
        match outcome {
            Ok(signed_in) => assert_eq!((signed_in.member.openid.as_str(), signed_in.is_new), (&**name, true)),
            Err(Error::Unavailable(cause)) => {
                assert_eq!((&**name, &*cause.to_string()), ("refused", "Postgres refused with SQLSTATE P0001"))
            }
            Err(other) => panic!("{name}: {other}"),
        }
    }
    assert_eq!(store.count(&crate::store::MemberFilter::All, 100).await.unwrap(), 19);
}

#[tokio::test]
async fn who_goes_away_takes_nobody_with_him() {
    let store = Postgres::open(&database().await).await.unwrap();
    let gone = futures_util::FutureExt::now_or_never(store.sign_in(person("gone")));
    assert!(gone.is_none(), "it has only been asked for");
    assert!(store.sign_in(person("p")).await.unwrap().is_new);
}

#[tokio::test]
async fn connections_that_were_ended_are_replaced() {
    // Its own, because connections are ended that might be anybody's.
    let server = PostgresServer::start();
    let store = Postgres::open(&database_in(&server)).await.unwrap();
    store.sign_in(person("p1")).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'wxgate' AND pid <> pg_backend_pid()
               AND query LIKE 'INSERT INTO members AS m%'";
    store.client().await.unwrap().batch_execute(end).await.unwrap();
    let again = async {
        while store.sign_in(person("p2")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), again).await.unwrap();
}

#[tokio::test]
async fn a_row_that_is_locked_for_long_is_one_persons_trouble() {
    let store = Postgres::open(&database().await).await.unwrap();
    store.sign_in(person("locked")).await.unwrap();
    let mut client = store.client().await.unwrap();
    let held = client.transaction().await.unwrap();
    held.execute("SELECT 1 FROM members WHERE openid = 'locked' FOR UPDATE", &[]).await.unwrap();
    let names = (0..50).map(|n| format!("p{n}")).chain(["locked".to_owned()]);
    let outcomes = join_all(names.map(|name| {
        let store = &store;
        async move { (store.sign_in(person(&name)).await, name) }
    }));
    for (outcome, name) in outcomes.await {
        match outcome {
            Ok(_) => assert_ne!(name, "locked"),
            Err(error) => assert_eq!(name, "locked", "{error}"),
        }
    }
    drop(held);
    store.sign_in(person("locked")).await.unwrap();
}
