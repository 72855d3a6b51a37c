//! `wxgate simulate`: the WeChat simulator alone, until it is interrupted.

use std::io::{self, Write};
use std::net::SocketAddr;

use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Clock;
use crate::wechat::simulator::{Simulator, SimulatorConfig};

/// Serves on `listen` (port 0 takes a free one) until ctrl-c or SIGTERM; says on `out` where, and how to try it. Any app
/// is accepted; the first secret shown for it becomes its AppSecret.
///
/// # Errors
/// When the address cannot be bound, the signals cannot be caught, or `out` cannot be written.
pub async fn run(listen: SocketAddr, out: &mut dyn Write) -> io::Result<()> {
    // Caught before the address is printed: who reads it may send the signal at once.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let simulator = Simulator::start(SimulatorConfig { listen, clock: Clock::system(), apps: None }).await?;
    introduce(&simulator, out)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    simulator.stop().await;
    Ok(())
}

/// Every line that starts with `curl` works as it stands, in this order.
fn introduce(simulator: &Simulator, out: &mut dyn Write) -> io::Result<()> {
    let base = simulator.api_base();
    writeln!(
        out,
        r#"WeChat simulator on {base}

In gateway.toml:
  [wechat]
  api_base = "{base}"

A code as wx.login gives it, single-use, five minutes (demo-alice is one that can be used again and again):
  curl -s '{base}/_sim/code?user=alice'
The exchange that the gateway makes:
  curl -s '{base}/sns/jscode2session?appid=wx0123456789abcdef&secret=s&js_code=demo-alice&grant_type=authorization_code'
What wx.getUserInfo and the phone button return after it:
  curl -s -d '{{"user":"alice"}}' '{base}/_sim/user-info'
  curl -s -d '{{"user":"alice"}}' '{base}/_sim/phone'
A bad day: the next exchange meets "system busy":
  curl -s -d '{{"path":"/sns/jscode2session","times":1,"errcode":-1}}' '{base}/_sim/faults'
What was asked so far:
  curl -s '{base}/_sim/calls'"#
    )?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[tokio::test]
    async fn every_printed_curl_line_works_in_its_order() {
        let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let config = SimulatorConfig { listen, clock: Clock::system(), apps: None };
        let simulator = Simulator::start(config).await.unwrap();
        let mut said = Vec::new();
        introduce(&simulator, &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let lines: Vec<_> = said.lines().filter(|line| line.trim_start().starts_with("curl")).collect();
        assert_eq!(lines.len(), 6, "{said}");
        for line in lines {
            let quoted: Vec<_> = line.split('\'').skip(1).step_by(2).collect();
            let request = match quoted[..] {
                [url] => http.get(url),
                [body, url] => http.post(url).body(body.to_owned()),
                _ => panic!("{line}"),
            };
            let answer = request.send().await.unwrap();
            assert!(answer.status().is_success(), "{line}: {}", answer.status());
            assert!(!answer.text().await.unwrap().contains("errcode\":4"), "{line}");
        }
    }
}
