//! Logins and refreshes per second.

use std::time::{Duration, Instant};

use crate::callers::{self, Caller};
use crate::cpu;
use crate::gateway::{Gateway, configure, start};
use crate::stores::Stores;
use crate::table::spread;
use crate::wechat::WeChat;
use crate::{Kind, Wish};

pub(crate) async fn measure(wish: &Wish) {
    println!("\n{} operations a round, {} rounds: median (least–greatest)\n", wish.operations, wish.rounds);
    println!(
        "| stores | WeChat | callers | operation | per second | CPU, µs each: gateway | store | callers and WeChat | commits each | connections to WeChat each |"
    );
    println!("| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for kind in &wish.stores {
        for ms in &wish.wechat_ms {
            one(wish, *kind, *ms).await;
        }
    }
}

/// What one round showed.
#[derive(Default)]
struct Rows {
    per_second: Vec<f64>,
    gateway: Vec<f64>,
    store: Vec<f64>,
    load: Vec<f64>,
    commits: Vec<f64>,
    connections: Vec<f64>,
}

impl Rows {
    fn print(&self, (stores, wechat_ms, callers): (&Stores, u64, u64), operation: &str) {
        println!(
            "| {} | {wechat_ms} ms | {callers} | {operation} | {} | {} | {} | {} | {} | {} |",
            stores.name(),
            spread(&self.per_second, 0),
            spread(&self.gateway, 0),
            spread(&self.store, 0),
            spread(&self.load, 0),
            spread(&self.commits, 3),
            spread(&self.connections, 3)
        );
    }
}

struct Before<'a> {
    gateway: &'a Gateway,
    stores: &'a Stores,
    wechat: &'a WeChat,
    at: Instant,
    cpu: Cpu,
    commits: Option<f64>,
    connections: u64,
}

/// Who has worked for how long.
struct Cpu {
    /// Without an embedded store.
    gateway: Duration,
    store: Duration,
    load: Duration,
}

impl Cpu {
    fn so_far(gateway: &Gateway, stores: &Stores) -> Self {
        let embedded = gateway.cpu_of_store();
        Self { gateway: gateway.cpu().saturating_sub(embedded), store: stores.cpu() + embedded, load: cpu::own() }
    }
}

impl<'a> Before<'a> {
    async fn of(gateway: &'a Gateway, stores: &'a Stores, wechat: &'a WeChat) -> Self {
        let (commits, connections) = (gateway.commits().await, wechat.connections());
        Self { gateway, stores, wechat, at: Instant::now(), cpu: Cpu::so_far(gateway, stores), commits, connections }
    }

    async fn into(self, operations: u64, rows: &mut Rows) {
        let (elapsed, cpu) = (self.at.elapsed(), Cpu::so_far(self.gateway, self.stores));
        let each = |what: f64| what / operations as f64;
        let micros = |after: Duration, before: Duration| each(after.saturating_sub(before).as_micros() as f64);
        rows.per_second.push(operations as f64 / elapsed.as_secs_f64());
        rows.gateway.push(micros(cpu.gateway, self.cpu.gateway));
        rows.store.push(micros(cpu.store, self.cpu.store));
        rows.load.push(micros(cpu.load, self.cpu.load));
        let commits = self.commits.zip(self.gateway.commits().await);
        rows.commits.extend(commits.map(|(before, after)| each(after - before)));
        rows.connections.push(each((self.wechat.connections() - self.connections) as f64));
    }
}

async fn one(wish: &Wish, kind: Kind, wechat_ms: u64) {
    let (folder, stores) = (wish.new_folder(), Stores::start(kind));
    let wechat = WeChat::start(Duration::from_millis(wechat_ms)).await;
    configure(folder.path(), &wechat.api_base(), &stores);
    let gateway = start(wish.binary(), folder.path());
    let callers = wish.callers.max(10 * wechat_ms);
    let (mut logins, mut refreshes) = (Rows::default(), Rows::default());
    // The first is not counted: connections are made, caches filled.
    for round in 0..=wish.rounds {
        let mut discarded = (Rows::default(), Rows::default());
        let (of_logins, of_refreshes) =
            if round == 0 { (&mut discarded.0, &mut discarded.1) } else { (&mut logins, &mut refreshes) };
        let connected = callers::connect(gateway.public, callers).await;
        let before = Before::of(&gateway, &stores, &wechat).await;
        // Every login is of somebody new: the costly case.
        let connected = callers::all(connected, wish.operations, move |n, mut caller: Caller| async move {
            caller.log_in(&format!("r{round}n{n}")).await;
            caller
        })
        .await;
        before.into(wish.operations, of_logins).await;
        if wechat_ms > 0 {
            continue;
        }
        let connected = connected.into_iter().filter(Caller::has_session).collect();
        let before = Before::of(&gateway, &stores, &wechat).await;
        callers::all(connected, wish.operations, |_, mut caller: Caller| async move {
            caller.refresh().await;
            caller
        })
        .await;
        before.into(wish.operations, of_refreshes).await;
    }
    logins.print((&stores, wechat_ms, callers), "login");
    // WeChat has no part in a refresh.
    if wechat_ms == 0 {
        refreshes.print((&stores, wechat_ms, callers), "refresh");
    }
}
