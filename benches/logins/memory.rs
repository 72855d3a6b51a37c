//! What many sessions take: of the gateway, and of the store.

use std::time::Duration;

use crate::Wish;
use crate::callers::{self, Caller};
use crate::gateway::{configure, start};
use crate::stores::Stores;
use crate::table::mib;
use crate::wechat::WeChat;

pub(crate) async fn measure(wish: &Wish) {
    println!("\nMemory of {} sessions, each of a member of its own\n", wish.sessions);
    println!("| stores | gateway before, MiB | gateway after, MiB | more, MiB | store of sessions, MiB more |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for kind in &wish.stores {
        let (folder, stores) = (wish.new_folder(), Stores::start(*kind));
        let wechat = WeChat::start(Duration::ZERO).await;
        configure(folder.path(), &wechat.api_base(), &stores);
        let gateway = start(wish.binary(), folder.path());
        let logins = |callers: Vec<Caller>, name: &'static str, n: u64| {
            callers::all(callers, n, move |n, mut caller: Caller| async move {
                caller.log_in(&format!("{name}{n}")).await;
                caller
            })
        };
        // Warm, so that buffers and caches are not counted.
        let connected = callers::connect(gateway.public, wish.callers).await;
        let connected = logins(connected, "warm", wish.operations).await;
        let (memory, size) = (gateway.memory(), stores.size(folder.path()));
        logins(connected, "n", wish.sessions).await;
        let (after, size_after) = (gateway.memory(), stores.size(folder.path()));
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.1} |",
            stores.name(),
            mib(memory as f64),
            mib(after as f64),
            mib(after as f64 - memory as f64),
            mib(size_after as f64 - size as f64)
        );
    }
}
