//! A start with many sessions: live revocations are loaded, and nothing else.

use std::path::Path;
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
    println!("\nA start with many sessions and revocations, {} of each: median (least–greatest)\n", wish.rounds);
    println!("| stores | sessions | live revocations | ready, ms | RSS, MiB |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for kind in &wish.stores {
        let (folder, stores) = (wish.new_folder(), Stores::start(*kind));
        configure(folder.path(), "http://127.0.0.1:9", &stores);
        // The first makes keys and tables.
        drop(start(wish.binary(), folder.path()));
        row(wish, &stores, folder.path(), (0, 0));
        fill(&stores, folder.path(), sessions, move |store, n, now| async move {
            store.open(session(n, now)).await.unwrap();
            if n.is_multiple_of(100) {
                store.end(&id("s", n), now, now.plus(DAY)).await.unwrap();
            }
        })
        .await;
        row(wish, &stores, folder.path(), (sessions, sessions.div_ceil(100)));
        // Of sessions that are not known here: what is loaded is the same.
        let more = sessions - sessions.div_ceil(100);
        fill(&stores, folder.path(), more, move |store, n, now| async move {
            store.end(&id("t", n), now, now.plus(DAY)).await.unwrap();
        })
        .await;
        row(wish, &stores, folder.path(), (sessions, sessions));
    }
}

/// Starts the gateway some times, and says how it went.
fn row(wish: &Wish, stores: &Stores, folder: &Path, (sessions, revoked): (u64, u64)) {
    let (mut ready, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..wish.rounds {
        let gateway = start(wish.binary(), folder);
        ready.push(gateway.ready_after.as_secs_f64() * 1000.0);
        memory.push(mib(gateway.memory() as f64));
    }
    let (name, ready, memory) = (stores.name(), spread(&ready, 0), spread(&memory, 1));
    println!("| {name} | {sessions} | {revoked} | {ready} | {memory} |");
}

/// Does it so many times with the store itself, many at once, while no gateway has it.
async fn fill<F: Future<Output = ()> + Send + 'static>(
    stores: &Stores,
    folder: &Path,
    times: u64,
    one: impl Fn(Arc<dyn Sessions>, u64, Timestamp) -> F,
) {
    let (store, begun, now) = (stores.open(folder).await, Instant::now(), Clock::system().now());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..times {
        tasks.spawn(one(Arc::clone(&store), n, now));
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    eprintln!("{times} written to {} in {:?}", stores.name(), begun.elapsed());
}

/// As long as those of the gateway.
fn id(kind: &str, n: u64) -> SessionId {
    SessionId::parse(&format!("{kind}{n:035}")).unwrap()
}

fn session(n: u64, now: Timestamp) -> NewSession {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&n.to_be_bytes());
    NewSession {
        session: Session {
            session_id: id("s", n),
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
