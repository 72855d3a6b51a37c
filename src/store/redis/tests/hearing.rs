//! What instances hear of each other.

use std::sync::Arc;
use std::time::Duration;

use super::super::Redis;
use super::super::news::LENGTH;
use super::on_one_server;
use crate::clock::Timestamp;
use crate::ids::{MemberId, SessionId};
use crate::store::shared::{News, Shared as _};
use crate::store::{NewRoles, Notice, Revoked, Sessions as _};

const START: Timestamp = Timestamp::from_secs(1_763_688_000);

/// Where one instance is in the news, and what it hears.
struct Hearer(Arc<Redis>, Option<String>);

impl Hearer {
    async fn hear(&mut self) -> Option<Vec<Notice>> {
        let News { position, notices, .. } = self.0.news(self.1.as_deref()).await.unwrap().unwrap();
        self.1 = position;
        notices
    }
}

#[tokio::test]
async fn each_instance_hears_everything_once_and_reads_anew_when_its_place_is_gone() {
    let store = on_one_server().await;
    let mut hearer = Hearer(Arc::clone(&store), None);
    assert_eq!(hearer.hear().await, None, "the first time there is everything to read");
    assert_eq!(hearer.hear().await, Some(Vec::new()));
    let session = SessionId::parse("s").unwrap();
    let roles = NewRoles {
        member_id: MemberId::parse("m").unwrap(),
        roles: vec!["vip".to_owned(), "a b".to_owned()],
        at: START,
        until: START.plus(Duration::from_secs(60)),
    };
    store.end(&session, START, START.plus(Duration::from_secs(60))).await.unwrap();
    store.announce_roles(roles.clone()).await.unwrap();
    let ended = Revoked { session_id: session, until: START.plus(Duration::from_secs(60)) };
    assert_eq!(hearer.hear().await, Some(vec![Notice::Session(ended), Notice::Roles(roles)]));
    assert_eq!(hearer.hear().await, Some(Vec::new()));
    // As after a failover to a replica that had not got it.
    hearer.1 = Some("1-1".to_owned());
    assert_eq!(hearer.hear().await, None);
    assert_eq!(hearer.hear().await, Some(Vec::new()));
}

#[tokio::test]
async fn what_a_later_version_tells_is_passed_over_and_all_else_is_heard() {
    let store = on_one_server().await;
    let mut hearer = Hearer(Arc::clone(&store), None);
    hearer.hear().await;
    let (news, notices) = (store.keys.news(), store.keys.notices());
    for of in ["weather:here", "no kind at all"] {
        let tell = redis::cmd("XADD").arg(&news).arg("*").arg(of).arg("v2 of something").to_owned();
        let _: String = store.link.write(&news, &tell).await.unwrap();
        let keep = redis::cmd("HSET").arg(&notices).arg(of).arg("v2 of something").to_owned();
        let _: u32 = store.link.write(&notices, &keep).await.unwrap();
    }
    let session = SessionId::parse("s").unwrap();
    store.end(&session, START, START.plus(Duration::from_secs(60))).await.unwrap();
    let ended = Revoked { session_id: session, until: START.plus(Duration::from_secs(60)) };
    assert_eq!(hearer.hear().await, Some(vec![Notice::Session(ended)]));
    assert_eq!(store.skipped_notices(), 2);
    assert_eq!(store.notices(START).await.unwrap(), []);
    store.sweep(START.plus(Duration::from_secs(60))).await.unwrap();
    let kept: u32 = store.link.read(redis::cmd("HLEN").arg(&notices)).await.unwrap();
    assert_eq!(kept, 2, "it is not ours to forget");
    // What is known and damaged is damage all the same.
    let tell = redis::cmd("XADD").arg(&news).arg("*").arg("member:m").arg("yesterday").to_owned();
    let _: String = store.link.write(&news, &tell).await.unwrap();
    store.news(hearer.1.as_deref()).await.unwrap_err();
}

#[tokio::test]
async fn an_answer_that_does_not_hold_all_says_so() {
    let store = on_one_server().await;
    let mut hearer = Hearer(Arc::clone(&store), None);
    hearer.hear().await;
    let tell = "for n = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'session:s' .. n, ARGV[2]) end";
    let mut many = redis::cmd("EVAL");
    many.arg(tell).arg(1).arg(store.keys.news()).arg(LENGTH + 5).arg(START.millis());
    let _: () = store.link.write(&store.keys.news(), &many).await.unwrap();
    let (mut heard, mut position) = (0, hearer.1);
    for more in [true, false] {
        let news = store.news(position.as_deref()).await.unwrap().unwrap();
        heard += news.notices.unwrap().len();
        position = news.position;
        assert_eq!(news.more, more);
    }
    assert_eq!(heard, LENGTH as usize + 5);
}
