//! `wxgate explain`: which route a request takes and why, whether it is let in, and where it goes. Opens no socket.

use std::fmt::Write as _;
use std::io::Write;
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use http::header::{HOST, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use http_body_util::BodyExt as _;
use serde::Deserialize;

use crate::config::{Auth, Balance, Config, HeaderRules, Route};
use crate::gateway::explain::{Caller, Explained, Question, explain};
use crate::ids::{AppId, OpenId};
use crate::pipeline::path::canonical_target;
use crate::pipeline::route::{Matched, host};
use crate::pipeline::why::Fit;

/// The question, as it stands on the command line.
#[derive(Debug, clap::Args)]
pub struct Asked {
    /// Method, such as GET
    method: String,
    /// URL, or a path (the host is that of the issuer then)
    url: String,
    /// Openid of the caller; without it, and without --roles, nobody is logged in
    #[arg(long)]
    openid: Option<String>,
    /// Roles of the caller
    #[arg(long, value_delimiter = ',')]
    roles: Vec<String>,
    /// App of the caller; the first of the file, if not given
    #[arg(long)]
    appid: Option<String>,
    /// A header of the request, "Name: value"; may be given several times
    #[arg(long = "header", short = 'H')]
    headers: Vec<String>,
    /// Address that the request comes from
    #[arg(long, default_value = "192.0.2.1")]
    from: IpAddr,
}

/// Says on `out` what this configuration does with the request. The exit status is 0 whatever that is.
///
/// # Errors
/// When the question cannot be understood.
pub async fn run(config: &Config, asked: &Asked, out: &mut impl Write) -> anyhow::Result<u8> {
    let question = question(config, asked)?;
    let url = question.url.clone();
    let told = told(config, &url, asked, explain(config, question).await?).await?;
    out.write_all(told.as_bytes())?;
    Ok(0)
}

fn question(config: &Config, asked: &Asked) -> anyhow::Result<Question> {
    let method = Method::from_bytes(asked.method.to_ascii_uppercase().as_bytes()).context("this is no method")?;
    let url: Uri = asked.url.parse().context("this is no URL")?;
    if url.scheme().is_none() && !asked.url.starts_with('/') {
        bail!("write a URL such as https://api.example.com/api/orders/7, or a path such as /api/orders/7");
    }
    let mut headers = HeaderMap::new();
    for line in &asked.headers {
        let (name, value) = line.split_once(':').context("write a header as \"Name: value\"")?;
        headers.append(name.trim().parse::<HeaderName>()?, HeaderValue::from_str(value.trim())?);
    }
    let named = asked.openid.is_some() || !asked.roles.is_empty() || asked.appid.is_some();
    let caller = match named {
        false => None,
        true => {
            let first = config.apps.first().map_or("", |app| app.appid.as_str());
            Some(Caller {
                openid: OpenId::parse(asked.openid.as_deref().unwrap_or("somebody")).context("--openid")?,
                appid: AppId::parse(asked.appid.as_deref().unwrap_or(first)).context("--appid")?,
                roles: asked.roles.clone(),
            })
        }
    };
    Ok(Question { method, url, headers, caller, from: asked.from })
}

/// What the gateway said itself.
#[derive(Deserialize)]
struct Problem {
    code: String,
    title: String,
    detail: String,
}

async fn told(config: &Config, url: &Uri, asked: &Asked, explained: Explained) -> anyhow::Result<String> {
    let Explained { before, exchange, forwarded, answer } = explained;
    let mut text = String::new();
    let mut say = |what: &str, line: &str| writeln!(text, "{what:<10} {line}");
    say("request", &format!("{} {url} from {}", asked.method.to_ascii_uppercase(), asked.from))?;
    let target = url.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let canonical = canonical_target(&target).ok().map(|canonical| canonical.unwrap_or_else(|| target.clone()));
    match &canonical {
        Some(canonical) if canonical.path() != target.path() => {
            say("path", &format!("{} once it is canonical", canonical.path()))?
        }
        Some(_) => {}
        None => say("path", "has more than one reading")?,
    }
    let route = match exchange.matched.get() {
        Some(Matched::Route(route)) => Some(&route.policy),
        Some(Matched::Endpoint) => {
            say("route", "none: it is one of the gateway's own endpoints, which judges the request itself")?;
            None
        }
        Some(Matched::Health) => {
            say("route", "none: it is the health answer ([server] health_path)")?;
            None
        }
        Some(Matched::Static(item)) => {
            say("route", &format!("none: it is the fixed answer [[static]] {}", item.path))?;
            None
        }
        None => {
            say("route", "none")?;
            None
        }
    };
    if let Some(canonical) = &canonical {
        let mut lookup = http::Request::builder().method(Method::GET).body(crate::body::Body::empty())?;
        lookup.headers_mut().extend(before.get(HOST).map(|host| (HOST, host.clone())));
        let method = Method::from_bytes(asked.method.to_ascii_uppercase().as_bytes())?;
        if let Some(route) = route {
            say("route", &route.label())?;
            say("because", "host, path and method fit, and none that fit is more specific")?;
        }
        for other in &config.routes {
            if route.is_some_and(|route| route.label() == other.label()) {
                continue;
            }
            let why = match Fit::of(other, &host(&lookup), canonical.path(), &method) {
                Fit::Matches => "fits too, and is less specific",
                Fit::OtherMethod => "takes other methods",
                Fit::OtherHost => "is for other hosts",
                Fit::OtherPath => "has another path",
            };
            say("not", &format!("{}: {why}", other.label()))?;
        }
    }
    let status = answer.status();
    let headers = answer.headers().clone();
    let refused = answer.extensions().get::<crate::problem::Refused>().is_some();
    if refused {
        let body = answer.into_body().collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
        let problem: Problem = serde_json::from_slice(&body)?;
        let mut line = format!("no: {status} {}: {}. {}", problem.code, problem.title, problem.detail);
        if line.ends_with(' ') {
            line.pop();
        }
        say("let in", &line)?;
        return Ok(text);
    }
    let Some(route) = route else { return Ok(text) };
    say("let in", &admitted(route, &exchange))?;
    if let Some(request) = forwarded {
        changes(&before, request.headers(), &mut |what, line| say(what, line))?;
        let upstream = route.upstream.and_then(|n| config.upstreams.get(n)).context("the route has no upstream")?;
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        say("goes to", &format!("{}: {} {} (Host: {host})", upstream.name, request.method(), request.uri()))?;
        let servers: Vec<&str> = upstream.servers.iter().map(|server| server.authority.as_str()).collect();
        let choice = match upstream.balance {
            _ if servers.len() == 1 => "the only server",
            Balance::RoundRobin => "one of them in turn",
            Balance::P2c => "the less loaded of two at random",
            Balance::HashOpenid if exchange.principal.get().is_some() => "always the same one for this openid",
            Balance::HashOpenid | Balance::HashIp => "always the same one for this address",
        };
        say("server", &format!("{}: {choice}, of those that are well", servers.join(", ")))?;
        rules(&route.headers.response, "answer", &mut |what, line| say(what, line))?;
        if route.compress.is_some() {
            say("answer", "is compressed, where the client takes it and it is worth it")?;
        }
    } else if let Some(location) = headers.get(LOCATION) {
        say("answer", &format!("{status} to {}", location.to_str().unwrap_or_default()))?;
    } else {
        say("answer", &format!("{status} by the gateway itself"))?;
    }
    Ok(text)
}

fn admitted(route: &Route, exchange: &crate::pipeline::Exchange) -> String {
    match (exchange.principal.get(), route.auth) {
        (Some(caller), _) => {
            let claims = &caller.claims;
            let roles = if claims.roles.is_empty() { "no roles".to_owned() } else { claims.roles.join(", ") };
            format!("yes, as openid {} of {} ({roles})", claims.openid.as_str(), claims.appid.as_str())
        }
        (None, Auth::None) => "yes: auth = \"none\" reads no token and sends no identity".to_owned(),
        (None, Auth::Optional | Auth::Required) => "yes, as nobody: auth = \"optional\"".to_owned(),
    }
}

/// Which headers are other than they came.
fn changes(
    before: &HeaderMap,
    after: &HeaderMap,
    say: &mut impl FnMut(&str, &str) -> std::fmt::Result,
) -> std::fmt::Result {
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        say("removed", name.as_str())?;
    }
    for name in after.keys() {
        let values = |map: &HeaderMap| map.get_all(name).iter().cloned().collect::<Vec<_>>();
        let (old, new) = (values(before), values(after));
        if old != new {
            for value in &new {
                say(if old.is_empty() { "added" } else { "changed" }, &format!("{name}: {}", shown(value)))?;
            }
        }
    }
    Ok(())
}

fn rules(rules: &HeaderRules, what: &str, say: &mut impl FnMut(&str, &str) -> std::fmt::Result) -> std::fmt::Result {
    for name in &rules.remove {
        say(what, &format!("loses {name}"))?;
    }
    for (name, value) in &rules.set {
        say(what, &format!("gets {name}: {} in place of its own", shown(value)))?;
    }
    for (name, value) in &rules.add {
        say(what, &format!("gets {name}: {}", shown(value)))?;
    }
    Ok(())
}

/// Longest value that is shown, bytes.
const LONGEST: usize = 200;

/// Values that the configuration sets may be keys of upstreams.
fn shown(value: &HeaderValue) -> &str {
    match value.is_sensitive() {
        true => "(not shown)",
        // An assertion, made with a key that nobody will see again.
        false if value.len() > LONGEST => "(a long value)",
        false => value.to_str().unwrap_or("(not text)"),
    }
}
