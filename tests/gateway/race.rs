//! Contract, promise 6: one refresh token yields one successor, on two processes with one Redis, through the death of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::crash::rounds;
use crate::support::DEADLINE;
use crate::support::gateway::Member;
use crate::support::place::Place;
use crate::support::postgres::PostgresServer;
use crate::support::process::Exit;
use crate::support::redis::RedisServers;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_refresh_token_yields_one_successor_on_two_processes_while_one_is_killed() {
    let (members, sessions) = (PostgresServer::start(), RedisServers::single());
    // The grace is longer than the slowest machine takes to start a process.
    let place = Place::with_stores("refresh_grace = \"10m\"", &members.url(), &sessions.url()).await;
    let stays = place.serve().await;
    let mut dies = place.serve().await;
    for round in 0..rounds(20) {
        let code = place.wechat.issue_code(None, &format!("user{round}"));
        let member = stays.caller().login(&code).await.expect("an answer");
        let answered = Arc::new(AtomicUsize::new(0));
        let mut shown = JoinSet::new();
        for n in 0..12 {
            let caller = if n % 2 == 0 { dies.caller() } else { stays.caller() };
            let (token, answered) = (member.refresh().to_owned(), Arc::clone(&answered));
            shown.spawn(async move {
                let answer = caller.refresh(&token).await;
                answered.fetch_add(1, Ordering::SeqCst);
                answer
            });
        }
        // Another moment each time.
        let moment = async {
            while answered.load(Ordering::SeqCst) < round % 7 {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, moment).await.expect("answers come");
        dies.process.kill();
        assert_eq!(dies.process.exit().await, Exit::Signal(9));
        let mut successors = Vec::new();
        while let Some(answer) = shown.join_next().await {
            if let Some(answer) = answer.unwrap() {
                assert_eq!(answer.status, 200, "round {round}: {}", answer.body);
                successors.push(Member { answer: answer.json() }.refresh().to_owned());
            }
        }
        dies = place.serve().await;
        for caller in [dies.caller(), stays.caller()] {
            let again = caller.refresh(member.refresh()).await.expect("an answer");
            assert_eq!(again.status, 200, "round {round}: {}", again.body);
            successors.push(Member { answer: again.json() }.refresh().to_owned());
        }
        let successor = successors[0].clone();
        assert!(successors.iter().all(|other| *other == successor), "round {round}: two successors");
        let next = dies.caller().refresh(&successor).await.expect("an answer");
        assert_eq!(next.status, 200, "round {round}: the successor works: {}", next.body);
        let reused = stays.caller().refresh(member.refresh()).await.expect("an answer");
        assert_eq!(reused.code(), "refresh_reused", "round {round}");
    }
}
