//! Load at a constant rate, whether or not answers come (an open loop): what somebody waits who did not choose the moment.
//!
//! Request `n` is due at `n / rate` after the start. Its time counts from then, also when no connection was free to send it or the
//! generator itself came late: a gateway that stands still for 100 ms makes everybody wait who is due meanwhile, and all of
//! them are counted. (A closed loop would have sent one request in that time, and called the rest fast: coordinated omission.)
//!
//! One thread, `epoll`, HTTP/1.1 with connections that stay. It prints one line: requests, those that were not answered with
//! 200, and p50, p99, p99.9 and the longest, in microseconds; at the end, by how much requests were sent late (p99), which tells
//! whether the generator kept up. `scripts/latency.sh` runs it.
#![forbid(unsafe_code)]

mod connection;
mod times;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use connection::{Connection, Heard};
use times::Times;

/// After the last request was due, this long is waited for answers.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Parser)]
struct Wish {
    /// Where to send requests.
    #[arg(long)]
    address: SocketAddr,
    /// Requests a second.
    #[arg(long)]
    rate: f64,
    /// For so long.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// What is sent in the first moments is not counted.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Connections; a request that finds all of them busy waits for the first to be free.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Path of every request.
    #[arg(long, default_value = "/api/orders?page=1")]
    path: String,
    /// A file of tokens, one a line, which are shown in turn; without it, none is.
    #[arg(long)]
    tokens: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Wish::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            println!("open loop: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run(wish: &Wish) -> Result<(), Box<dyn std::error::Error>> {
    let requests = requests(wish)?;
    // The kernel may wake a sleeper 50 µs late to save power; here that would be a part of every figure.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut connections = Vec::with_capacity(wish.connections);
    for n in 0..wish.connections {
        let connection = Connection::open(wish.address)?;
        epoll::add(&epoll, connection.stream(), EventData::new_u64(n as u64), EventFlags::IN)?;
        connections.push(connection);
    }

    let total = (wish.rate * wish.seconds) as u64;
    let skipped = (wish.rate * wish.warm_up.min(wish.seconds / 2.0)) as u64;
    let due = |n: u64| Duration::from_nanos((n as f64 * 1e9 / wish.rate) as u64);
    let mut free: VecDeque<usize> = (0..connections.len()).collect();
    let (mut sent, mut answered, mut failed) = (0_u64, 0_u64, 0_u64);
    let (mut times, mut late) = (Times::default(), Times::default());
    let mut events = Vec::with_capacity(connections.len());
    let begun = Instant::now();
    while answered < total && begun.elapsed() < due(total) + PATIENCE {
        let mut now = begun.elapsed();
        while sent < total && due(sent) <= now {
            let Some(at) = free.pop_front() else { break };
            if sent >= skipped {
                late.add(now - due(sent));
            }
            connections[at].send(&requests[sent as usize % requests.len()], sent)?;
            sent += 1;
            now = begun.elapsed();
        }
        let wait = if sent < total && !free.is_empty() { due(sent).saturating_sub(now) } else { PATIENCE };
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&wait))?;
        for event in &events {
            let at = event.data.u64() as usize;
            let (n, ok) = match connections[at].hear()? {
                Heard::Part => continue,
                Heard::Answer { request, ok } => (request, ok),
                Heard::End { request } => {
                    epoll::delete(&epoll, connections[at].stream())?;
                    connections[at] = Connection::open(wish.address)?;
                    epoll::add(&epoll, connections[at].stream(), EventData::new_u64(at as u64), EventFlags::IN)?;
                    // Nothing was asked: the other side merely closed what was idle, and the place is in `free` already.
                    let Some(request) = request else { continue };
                    (request, false)
                }
            };
            free.push_back(at);
            answered += 1;
            failed += u64::from(!ok);
            if n >= skipped {
                times.add(begun.elapsed().saturating_sub(due(n)));
            }
        }
    }
    // What has not been answered by now has failed, and took at least as long as it has waited.
    let now = begun.elapsed();
    let waiting = connections.iter().filter_map(Connection::waits_for).chain(sent..total);
    for n in waiting {
        failed += 1;
        if n >= skipped {
            times.add(now.saturating_sub(due(n)));
        }
    }
    println!(
        "requests {} failed {failed} p50 {} p99 {} p999 {} max {} late99 {}",
        times.count(),
        times.at(0.5),
        times.at(0.99),
        times.at(0.999),
        times.at(1.0),
        late.at(0.99)
    );
    Ok(())
}

/// Requests as a mini program sends them, one for each token.
fn requests(wish: &Wish) -> Result<Vec<Vec<u8>>, std::io::Error> {
    let tokens = match &wish.tokens {
        Some(file) => std::fs::read_to_string(file)?,
        None => String::from("\n"),
    };
    let request = |token: &str| {
        let authorization = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        format!(
            "GET {} HTTP/1.1\r\n{authorization}Host: bench.example.test\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate, br\r\n\
             Accept-Language: zh-CN,zh-Hans;q=0.9\r\nContent-Type: application/json\r\n\
             User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
             Mobile/15E148 MicroMessenger/8.0.54 NetType/WIFI Language/zh_CN\r\n\
             Referer: https://servicewechat.com/wx0123456789abcdef/12/page-frame.html\r\nX-WX-OPENID: forged\r\n\r\n",
            wish.path
        )
        .into_bytes()
    };
    Ok(tokens.lines().map(request).collect())
}
