//! `{base}/push/{appid}`: WeChat's message push.
//!
//! GET is the console's check of the address. POST is a message: its signature is checked, in safe mode it is decrypted,
//! and it goes to the upstream of `[[app]] push` as JSON. One message is delivered once, however often WeChat repeats it;
//! one that could not be delivered is not remembered, so that the repetition has its chance. When a person withdraws what
//! they had allowed (`user_authorization_revoke`), sessions, session_keys and profile go first.
//!
//! An app with an `aes_key` takes safe mode only: otherwise anybody who sees one signed query could put any body under it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{digest, rand};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response};
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::clock::Timestamp;
use crate::config;
use crate::ids::{AppId, OpenId};
use crate::problem::{Code, Problem};
use crate::store::shared::Purpose;
use crate::wechat::message::{self, Format};
use crate::wechat::push::{self, AesKey};

use super::Auth;
use super::call::Call;
use super::exclusive::exclusively;
use super::seen::{self, Verdict};
use super::single_flight::SingleFlight;

/// How far the timestamp of a push may be from our clock.
const FRESH: Duration = Duration::from_secs(300);

/// How long a message is remembered: a timestamp from the future stays fresh for twice [`FRESH`].
const MEMORY: Duration = Duration::from_secs(660);

/// WeChat waits 5 seconds for an answer; within this the upstream must have given its own.
pub const DEADLINE: Duration = Duration::from_millis(4500);

/// Longer than a delivery may take.
const LEASE: Duration = Duration::from_secs(10);

const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// What is known of pushes; outlives a reload.
#[derive(Debug, Default)]
pub struct Pushes {
    flights: Arc<SingleFlight<[u8; 32], Result<Reply, Problem>>>,
}

/// A message on its way to an upstream.
#[derive(Debug)]
pub struct Delivery {
    /// Index into the configured upstreams.
    pub upstream: usize,
    /// Where it goes there.
    pub path: String,
    /// The app.
    pub appid: AppId,
    /// Who it is about, when it says so.
    pub openid: Option<OpenId>,
    /// The message, JSON.
    pub body: Bytes,
}

/// What the upstream answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its `Content-Type`.
    pub content_type: Option<HeaderValue>,
    /// Its body.
    pub body: Bytes,
}

/// The way to the upstreams: an argument, since nothing here knows how to forward.
#[derive(Clone)]
pub struct Deliver(Arc<Way>);

type Way = dyn Fn(Delivery) -> BoxFuture<'static, Result<Reply, Problem>> + Send + Sync;

impl Deliver {
    /// This way.
    pub fn new(way: impl Fn(Delivery) -> BoxFuture<'static, Result<Reply, Problem>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(way))
    }
}

impl fmt::Debug for Deliver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deliver(…)")
    }
}

type Shown = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// GET: the address is ours, so the echostr goes back.
pub async fn check(
    State(auth): State<Arc<Auth>>,
    Path(appid): Path<String>,
    query: Shown,
    call: Call,
) -> Response<axum::body::Body> {
    let made = echo(&auth, &appid, query);
    call.answer(made)
}

fn echo(auth: &Auth, appid: &str, query: Shown) -> Result<Response<Body>, Problem> {
    let (_, section) = find(auth, appid)?;
    let signed = Signed::read(query)?;
    let echostr = signed.get("echostr")?;
    // Signed like a plain message in safe mode, too.
    signed.check("signature", section, None, auth.clock.now())?;
    Ok(plain(Bytes::from(echostr.to_owned())))
}

/// POST: a message.
pub async fn receive(
    State(auth): State<Arc<Auth>>,
    Path(appid): Path<String>,
    query: Shown,
    call: Call,
) -> Response<axum::body::Body> {
    let made = handle(&auth, &appid, query, call.body()).await;
    call.answer(made)
}

async fn handle(auth: &Arc<Auth>, appid: &str, query: Shown, body: &Bytes) -> Result<Response<Body>, Problem> {
    let (app, section) = find(auth, appid)?;
    let signed = Signed::read(query)?;
    let keys = section
        .aes_key
        .iter()
        .chain(&section.previous_aes_key)
        .map(|text| AesKey::parse(text.expose()).ok_or_else(|| Problem::internal("an aes_key is no key")));
    let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
    let (envelope, format) = message::parse(body).map_err(malformed)?;
    let (message, key) = match keys.is_empty() {
        true => {
            signed.check("signature", section, None, auth.clock.now())?;
            (envelope, None)
        }
        false => {
            let encrypted = envelope.get("Encrypt").and_then(Value::as_str);
            let encrypted = encrypted.ok_or_else(|| invalid("This app takes message push in safe mode only."))?;
            signed.check("msg_signature", section, Some(encrypted), auth.clock.now())?;
            // While a changed key spreads at WeChat, the one before still comes.
            let open = |key: &AesKey| push::open(key, encrypted, app.appid.as_str()).ok();
            let (opened, key) = keys.iter().find_map(|key| Some((open(key)?, key))).ok_or_else(|| {
                Problem::new(Code::DecryptFailed, "Check EncodingAESKey and appid.").caused_by(push::Unreadable)
            })?;
            (message::parse(&opened).map_err(malformed)?.0, Some(key))
        }
    };
    let reply = once(auth, app, section, &signed, message).await?;
    answer(reply, key, app, section, &signed, format, auth.clock.now())
}

fn find<'a>(auth: &'a Auth, appid: &str) -> Result<(&'a config::App, &'a config::Push), Problem> {
    let app = auth.apps.iter().find(|app| app.appid.as_str() == appid);
    app.and_then(|app| Some((app, app.push.as_ref()?)))
        .ok_or_else(|| Problem::new(Code::RouteNotFound, "No message push is taken for this appid."))
}

fn invalid(detail: &'static str) -> Problem {
    Problem::new(Code::InvalidRequest, detail)
}

fn malformed(cause: message::Malformed) -> Problem {
    invalid("The body must be a message of WeChat, JSON or XML.").caused_by(cause)
}

/// The query of a push.
struct Signed(Vec<(String, String)>);

impl Signed {
    fn read(query: Shown) -> Result<Self, Problem> {
        let Query(pairs) = query.map_err(|_| invalid("The query cannot be read."))?;
        Ok(Self(pairs))
    }

    /// The one value of this name.
    fn get(&self, name: &str) -> Result<&str, Problem> {
        let mut values = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            _ => Err(invalid("The query must hold timestamp, nonce and the signature, each once.")),
        }
    }

    /// Whether WeChat made this query, lately.
    fn check(
        &self,
        name: &str,
        section: &config::Push,
        encrypted: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let (shown, timestamp, nonce) = (self.get(name)?, self.get("timestamp")?, self.get("nonce")?);
        let mut parts = vec![section.token.expose().as_str(), timestamp, nonce];
        parts.extend(encrypted);
        if !push::is_signed(shown, &parts) {
            return Err(Problem::new(Code::SignatureMismatch, "Check the Token of the message push."));
        }
        let made = timestamp.parse().ok().map(Timestamp::from_secs);
        match made.is_some_and(|made| made.since(now) <= FRESH && now.since(made) <= FRESH) {
            true => Ok(()),
            false => Err(invalid("The timestamp is too far from the gateway's clock.")),
        }
    }
}

/// Delivers a message, unless that was done; of several at once, one.
async fn once(
    auth: &Arc<Auth>,
    app: &config::App,
    section: &config::Push,
    signed: &Signed,
    message: Map<String, Value>,
) -> Result<Reply, Problem> {
    let appid = app.appid.as_str();
    let nonce = hash(&["nonce", appid, signed.get("timestamp")?, signed.get("nonce")?]);
    let identity = identity(appid, &message)?;
    // Asked before it is joined to a delivery under way: another message under the same nonce is nobody's repetition.
    if seen::verdict(&*auth.shared, &nonce, &identity).await? == Verdict::Replayed {
        return Err(invalid("This nonce was used for another message."));
    }
    let flights = Arc::clone(&auth.pushes.flights);
    let (auth, app, section) = (Arc::clone(auth), app.clone(), section.clone());
    let (outcome, _) = flights
        .run(identity, || async move {
            let delivered = || async {
                let seen = seen::verdict(&*auth.shared, &nonce, &identity).await?;
                Ok((seen != Verdict::New).then(|| Reply { content_type: None, body: Bytes::new() }))
            };
            let work = async {
                let reply = deliver(&auth, &app, &section, message).await?;
                seen::remember(&*auth.shared, &nonce, &identity, MEMORY).await?;
                Ok(reply)
            };
            exclusively(&*auth.shared, (Purpose::Delivery, &identity), LEASE, delivered, work).await
        })
        .await;
    outcome.ok_or_else(|| Problem::internal("a delivery panicked"))?
}

/// What two sendings of one message have in common (official page "Message push"): MsgId, or for events who, when and
/// what.
fn identity(appid: &str, message: &Map<String, Value>) -> Result<[u8; 32], Problem> {
    let text = |name: &str| match message.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let msg_id = text("MsgId");
    if !msg_id.is_empty() {
        return Ok(hash(&["message", appid, &msg_id]));
    }
    let parts = [text("FromUserName"), text("CreateTime"), text("MsgType"), text("Event")];
    if parts.iter().all(String::is_empty) {
        // Nothing to tell it by but all of it.
        let whole = serde_json::to_string(message).map_err(Problem::internal)?;
        return Ok(hash(&["whole", appid, &whole]));
    }
    Ok(hash(&["event", appid, &parts[0], &parts[1], &parts[2], &parts[3]]))
}

fn hash(parts: &[&str]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

async fn deliver(
    auth: &Auth,
    app: &config::App,
    section: &config::Push,
    message: Map<String, Value>,
) -> Result<Reply, Problem> {
    let text = |name: &str| message.get(name).and_then(Value::as_str);
    let revoked = text("MsgType") == Some("event") && text("Event") == Some("user_authorization_revoke");
    let person = match revoked {
        true => text("OpenID").or_else(|| text("FromUserName")),
        false => text("FromUserName"),
    };
    let openid = person.and_then(|person| OpenId::parse(person).ok());
    if revoked && let Some(openid) = &openid {
        forget(auth, &app.appid, openid).await?;
    }
    if let Some(openid) = &openid
        && let Some(event @ ("subscribe" | "unsubscribe")) = text("Event")
    {
        auth.followers.told(&app.appid, openid, event == "subscribe", auth.clock.now());
    }
    let body = serde_json::to_vec(&message).map_err(Problem::internal)?;
    let delivery = Delivery {
        upstream: section.upstream,
        path: section.path.clone(),
        appid: app.appid.clone(),
        openid,
        body: body.into(),
    };
    (auth.deliver.0)(delivery).await
}

/// A person has withdrawn what they had allowed: nobody stays logged in for them, and what they told is gone. The record
/// itself stays, and with it a ban.
async fn forget(auth: &Auth, appid: &AppId, openid: &OpenId) -> Result<(), Problem> {
    let now = auth.clock.now();
    let until = auth.access_until(now);
    auth.sessions.erase_keys(appid, openid).await?;
    let Some(member) = auth.members.forget_profile(appid, openid).await? else { return Ok(()) };
    // Also those from before a merge, which bear the id of then.
    for id in auth.ids_of(&member.member_id).await? {
        auth.end_all((&id, appid), None, now, until).await?;
    }
    tracing::info!(member = member.member_id.as_str(), "authorisation withdrawn: sessions and profile are gone");
    Ok(())
}

/// `success`, or what the upstream replied; in safe mode encrypted.
fn answer(
    reply: Reply,
    key: Option<&AesKey>,
    app: &config::App,
    section: &config::Push,
    signed: &Signed,
    format: Format,
    now: Timestamp,
) -> Result<Response<Body>, Problem> {
    const SUCCESS: &[u8] = b"success";
    let body = reply.body.trim_ascii();
    if body.is_empty() || body == SUCCESS {
        return Ok(plain(Bytes::from_static(SUCCESS)));
    }
    let Some(key) = key else {
        let content_type = reply.content_type.unwrap_or(HeaderValue::from_static("application/json"));
        return Ok(typed(reply.body, content_type));
    };
    let mut random = [0; 16];
    rand::fill(&mut random).map_err(|_| Problem::internal("the system gives no random numbers"))?;
    let sealed = push::seal(key, &random, body, app.appid.as_str()).ok_or_else(|| Problem::internal("a huge reply"))?;
    let (timestamp, nonce) = (now.secs(), signed.get("nonce")?);
    let signature = push::signature(&[section.token.expose(), &timestamp.to_string(), nonce, &sealed]);
    Ok(match format {
        Format::Json => {
            let document =
                json!({ "Encrypt": sealed, "MsgSignature": signature, "TimeStamp": timestamp, "Nonce": nonce });
            typed(document.to_string().into(), HeaderValue::from_static("application/json"))
        }
        Format::Xml => {
            let document = format!(
                "<xml><Encrypt>{}</Encrypt><MsgSignature>{}</MsgSignature><TimeStamp>{timestamp}</TimeStamp><Nonce>{}</Nonce></xml>",
                message::cdata(&sealed),
                message::cdata(&signature),
                message::cdata(nonce)
            );
            typed(document.into(), HeaderValue::from_static("text/xml; charset=utf-8"))
        }
    })
}

fn plain(text: Bytes) -> Response<Body> {
    typed(text, HeaderValue::from_static("text/plain; charset=utf-8"))
}

fn typed(body: Bytes, content_type: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // An echostr is somebody else's text under our name.
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    response
}
