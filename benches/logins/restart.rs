//! A start with many sessions: live revocations are loaded, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wxgate::clock::{Clock, Timestamp};
use wxgate::ids::{AppId, MemberId, OpenId, SessionId};
use wxgate::store::{CodeHash, NewSession, RefreshHash, Session, Sessions};

use crate::Wish;
use crate::gateway::{configure, start};
use crate::stores::Stores;
use crate::table::{mib, spread};

const DAY: Duration = Duration::from_secs(86_400);

/// Sessions that are written at the same time.
const AT_ONCE: usize = 512;

pub(crate) async fn measure(wish: &Wish) {
    let sessions = wish.restart_sessions;
    println!("\nA start with {sessions} sessions, of which {} are revoked: median (least–greatest)\n", sessions / 100);
    println!("| stores | ready with none, ms | ready, ms | RSS, MiB |");
    println!("| --- | ---: | ---: | ---: |");
    for kind in &wish.stores {
        let (folder, stores) = (wish.new_folder(), Stores::start(*kind));
        configure(folder.path(), "http://127.0.0.1:9", &stores);
        // The first makes keys and tables.
        drop(start(wish.binary(), folder.path()));
        let millis = |ready: Duration| ready.as_secs_f64() * 1000.0;
        let empty: Vec<f64> =
            (0..wish.rounds).map(|_| millis(start(wish.binary(), folder.path()).ready_after)).collect();
        let begun = Instant::now();
        fill(&stores.open(folder.path()).await, sessions).await;
        eprintln!("{sessions} sessions written to {} in {:?}", stores.name(), begun.elapsed());
        let (mut ready, mut memory) = (Vec::new(), Vec::new());
        for _ in 0..wish.rounds {
            let gateway = start(wish.binary(), folder.path());
            ready.push(millis(gateway.ready_after));
            memory.push(mib(gateway.memory() as f64));
        }
        println!("| {} | {} | {} | {} |", stores.name(), spread(&empty, 0), spread(&ready, 0), spread(&memory, 1));
    }
}

async fn fill(store: &Arc<dyn Sessions>, sessions: u64) {
    let now = Clock::system().now();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..sessions {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            store.open(session(n, now)).await.unwrap();
            if n.is_multiple_of(100) {
                store.end(&SessionId::parse(&format!("s{n}")).unwrap(), now, now.plus(DAY)).await.unwrap();
            }
        });
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

fn session(n: u64, now: Timestamp) -> NewSession {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&n.to_be_bytes());
    NewSession {
        session: Session {
            session_id: SessionId::parse(&format!("s{n}")).unwrap(),
            member_id: MemberId::parse(&format!("m{n}")).unwrap(),
            appid: AppId::parse("wx0123456789abcdef").unwrap(),
            openid: OpenId::parse(&format!("o{n}")).unwrap(),
            created_at: now,
            expires_at: now.plus(180 * DAY),
        },
        refresh: RefreshHash(hash),
        refresh_expires_at: now.plus(30 * DAY),
        code: CodeHash(hash),
        code_expires_at: now.plus(Duration::from_secs(600)),
        is_new: true,
        session_key: None,
        access_until: now.plus(Duration::from_secs(7200)),
        max_sessions: None,
    }
}
