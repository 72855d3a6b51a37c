//! `wxgate demo`: the main job on a bare machine. Gateway, WeChat simulator and a sample service in one process.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use socket2::{Domain, Socket, Type};

use crate::clock::Clock;
use crate::config::{self, Environment};
use crate::telemetry::LogWriter;
use crate::wechat::simulator::{Simulator, SimulatorConfig};

use super::sample::Sample;
use super::serve::{Running, Stop};

const APPID: &str = "wx0123456789abcdef";
/// What the sample service would show on the internal listener; nobody's, like the AppSecret.
const SERVICE_TOKEN: &str = "demo-service-token";

/// Where the demo listens and keeps its data.
#[derive(Debug, Clone)]
pub struct Options {
    /// The public listener.
    pub listen: SocketAddr,
    /// The operators' listener.
    pub admin: SocketAddr,
    /// The services' listener.
    pub internal: SocketAddr,
    /// Database, keys and configuration; a temporary folder, deleted at the end, when not named.
    pub data: Option<PathBuf>,
}

/// Runs the demo until it is told to stop; prints on `out` where everything is and how to try it.
///
/// # Errors
/// When something cannot be started.
pub async fn run(options: &Options, log: LogWriter, out: &mut impl Write) -> anyhow::Result<()> {
    let stop = Stop::catch()?;
    let temporary = match options.data {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("wxgate-demo-").tempdir().context("no temporary folder")?),
    };
    let data = match (&options.data, &temporary) {
        (Some(named), _) => {
            std::fs::create_dir_all(named).with_context(|| format!("cannot make {}", named.display()))?;
            named.canonicalize()?
        }
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => anyhow::bail!("no folder for the data"),
    };
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let simulator = Simulator::start(SimulatorConfig { listen, clock: Clock::system(), apps: None })
        .await
        .context("cannot start the WeChat simulator")?;
    let sample = Sample::start().await.context("cannot start the sample service")?;
    let (listen, reserved) = reserve(options.listen).with_context(|| format!("cannot listen on {}", options.listen))?;
    let options = &Options { listen, ..options.clone() };
    let path = data.join("gateway.toml");
    let text = configuration(options, &simulator.api_base(), sample.address());
    std::fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    let config = config::parse(text, &path, &Environment::process())?;
    let running = Running::start(config, Clock::system(), log).await?;
    drop(reserved);
    let gateway = running.server.addresses().first().copied().unwrap_or(options.listen);
    let admin = running.server.admin_address();
    let internal = running.server.internal_address().unwrap_or(options.internal);
    introduce(out, gateway, admin, internal, &simulator.api_base(), sample.address(), &path)?;
    stop.told().await;
    running.stop().await;
    simulator.stop().await;
    drop(sample);
    drop(temporary);
    Ok(())
}

/// Port 0 made a real one, because the issuer has to name it, and what keeps it ours until the gateway has it: a socket
/// that does not listen, and shares its address as the workers' do.
fn reserve(address: SocketAddr) -> std::io::Result<(SocketAddr, Option<Socket>)> {
    if address.port() != 0 {
        return Ok((address, None));
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    let bound = socket.local_addr()?.as_socket().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    Ok((bound, Some(socket)))
}

fn configuration(options: &Options, api_base: &str, sample: SocketAddr) -> String {
    let Options { listen, admin, internal, .. } = options;
    format!(
        r#"# Made by `wxgate demo`. WeChat is the simulator; the secret is nobody's.
[server]
listen = ["{listen}"]
[admin]
listen = "{admin}"
[internal]
listen = "{internal}"
[[internal.service]]
name = "sample"
token = "{SERVICE_TOKEN}"

[token]
issuer = "http://{listen}"
keys = "keys"
[store]
members = "sqlite:wxgate.db"
sessions = "sqlite:wxgate.db"

[wechat]
api_base = "{api_base}"
open_base = "{api_base}"

[[app]]
appid = "{APPID}"
kind = "mini-program"
secret = "demo"

[[upstream]]
name = "sample"
servers = ["http://{sample}"]

# Members only: without a token the answer is 401, and the service never sees the request.
[[route]]
path = "/api/*"
upstream = "sample"

# Everybody; a member is recognised.
[[route]]
path = "/public/*"
upstream = "sample"
auth = "optional"
"#
    )
}

/// Every line that is not a comment works as it stands, in this order, in `sh` with curl and sed.
fn introduce(
    out: &mut impl Write,
    gateway: SocketAddr,
    admin: SocketAddr,
    internal: SocketAddr,
    simulator: &str,
    sample: SocketAddr,
    config: &std::path::Path,
) -> std::io::Result<()> {
    write!(
        out,
        r#"wxgate demo

  gateway          http://{gateway}
  admin            http://{admin}   (/livez, /readyz, /metrics)
  internal         http://{internal}   (for services: /introspect, /verify)
  WeChat simulator {simulator}
  sample service   http://{sample}   (reads X-WX-OPENID and knows nothing of tokens)
  configuration    {config}

Try it: each line works as it stands.

# what wx.login gives the mini program
CODE=$(curl -s '{simulator}/_sim/code?user=alice' | sed 's/.*"code": *"\([^"]*\)".*/\1/')
# log in: the code becomes a member and a token
ANSWER=$(curl -s http://{gateway}/auth/login -H 'Content-Type: application/json' -d "{{\"code\":\"$CODE\"}}"); echo "$ANSWER"
TOKEN=$(echo "$ANSWER" | sed 's/.*"access_token": *"\([^"]*\)".*/\1/')
REFRESH=$(echo "$ANSWER" | sed 's/.*"refresh_token": *"\([^"]*\)".*/\1/')
# call a service: it reads the openid from a header
curl -s http://{gateway}/api/hello -H "Authorization: Bearer $TOKEN"; echo
# without a token the service is never asked
curl -s http://{gateway}/api/hello; echo
# a header that the client makes up does not arrive
curl -s http://{gateway}/public/hello -H 'X-WX-OPENID: somebody-else'; echo
# who am I
curl -s http://{gateway}/auth/me -H "Authorization: Bearer $TOKEN"; echo
# a service asks what the token says
curl -s http://{internal}/introspect -H 'Authorization: Bearer {SERVICE_TOKEN}' -d "token=$TOKEN"; echo
# a new pair for the refresh token
curl -s http://{gateway}/auth/refresh -H 'Content-Type: application/json' -d "{{\"refresh_token\":\"$REFRESH\"}}"; echo
# log out: the token ends at once
curl -s -o /dev/null -w '%{{http_code}}\n' -X POST http://{gateway}/auth/logout -H "Authorization: Bearer $TOKEN"
curl -s http://{gateway}/api/hello -H "Authorization: Bearer $TOKEN"; echo

Stop with ctrl-c.
"#,
        config = config.display()
    )?;
    out.flush()
}
