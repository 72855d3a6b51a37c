//! Calls to WeChat's API for services, which need neither token nor secret: `/wechat/{appid}/…`.
//!
//! The same for plain `Host: api.weixin.qq.com` and for absolute-form requests to it, so that a service written for
//! CloudRun's token-free calls runs with `http_proxy` set and nothing else. A service reaches the paths of its own list.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, Request, State};
use axum::middleware::Next;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Response, Uri};
use http_body_util::BodyExt as _;

use crate::body::Body;
use crate::config::{App, PathPattern, Segment};
use crate::gateway::Gateway;
use crate::problem::{Code, Problem};
use crate::wechat::relay::{Call, Relayed, Upload};

use super::{Answer, refused};

/// The host that services written for CloudRun call.
const OFFICIAL: &str = "api.weixin.qq.com";

/// Names the app of a call to [`OFFICIAL`], where there are several. Not passed on.
const APP: HeaderName = HeaderName::from_static("x-wxgate-app");

/// Largest body that is kept to be sent again when WeChat refuses the token; a larger one is streamed, and sent once.
const KEPT: u64 = 64 * 1024;

/// Largest body of all: WeChat takes media of some tens of megabytes.
const MAX_BODY: usize = 128 * 1024 * 1024;

/// What the service that asks may call.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) wechat: Vec<PathPattern>,
}

impl Caller {
    /// The entry of its list that allows `path`.
    ///
    /// # Errors
    /// `forbidden`, when there is none.
    pub(super) fn may_call(&self, path: &str) -> Result<&PathPattern, Problem> {
        let allowed = self.wechat.iter().find(|allowed| is_plain(path) && allows(allowed, path));
        let detail = "This service may not call this path: see `wechat` of its [[internal.service]].";
        allowed.ok_or_else(|| Problem::new(Code::Forbidden, detail))
    }
}

/// Takes what is meant for WeChat's own host, whatever its path; everything else passes.
pub(super) async fn official(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Answer {
    match host(request.uri(), request.headers()) {
        Some(host) if is_official(&host) => {
            let snapshot = gateway.current();
            let path = request.uri().path().to_owned();
            match meant(&snapshot.config.apps, request.headers()) {
                Ok(app) => finish(relay(&gateway, &caller, app, path, request).await),
                Err(problem) => refused(problem),
            }
        }
        // In absolute form there is no other host to speak to: this is no open proxy.
        Some(_) if request.uri().authority().is_some() => {
            refused(Problem::new(Code::Forbidden, "This listener relays to WeChat's API alone."))
        }
        _ => next.run(request).await,
    }
}

/// The app of a call that does not name it in its path: the one of [`APP`], or the only one there is.
fn meant<'a>(apps: &'a [App], headers: &HeaderMap) -> Result<&'a App, Problem> {
    let mut named = headers.get_all(APP).iter();
    match (named.next(), named.next(), apps) {
        (Some(_), Some(_), _) => Err(Problem::new(Code::InvalidRequest, "Send one X-Wxgate-App.")),
        (Some(appid), None, apps) => {
            let app = apps.iter().find(|app| app.appid.as_str().as_bytes() == appid.as_bytes());
            app.ok_or_else(unknown)
        }
        (None, _, [only]) => Ok(only),
        (None, _, _) => {
            let detail =
                "This gateway serves several apps: send X-Wxgate-App, or call /wechat/APPID/… on this listener.";
            Err(Problem::new(Code::InvalidRequest, detail))
        }
    }
}

fn unknown() -> Problem {
    Problem::new(Code::UnknownApp, "This gateway does not serve an app of this appid.")
}

fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let authority = uri.authority().map(|authority| authority.as_str().to_ascii_lowercase());
    authority.or_else(|| Some(headers.get(HOST)?.to_str().ok()?.to_ascii_lowercase()))
}

fn is_official(host: &str) -> bool {
    host.strip_prefix(OFFICIAL).is_some_and(|port| matches!(port, "" | ":80" | ":443"))
}

/// `/wechat/{appid}/…`.
pub(super) async fn by_appid(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    let snapshot = gateway.current();
    let target = request.uri().path().strip_prefix("/wechat/").and_then(|rest| rest.split_once('/'));
    let Some((appid, path)) = target.map(|(appid, path)| (appid, format!("/{path}"))) else {
        return refused(Problem::new(Code::RouteNotFound, "Call /wechat/APPID/PATH-OF-WECHAT."));
    };
    match snapshot.config.apps.iter().find(|app| app.appid.as_str() == appid) {
        Some(app) => finish(relay(&gateway, &caller, app, path, request).await),
        None => refused(unknown()),
    }
}

fn finish(relayed: Result<Relayed, Problem>) -> Answer {
    match relayed {
        Ok(relayed) => {
            let mut response = Response::new(axum::body::Body::new(relayed.body));
            *response.status_mut() = relayed.status;
            *response.headers_mut() = relayed.headers;
            let id = uuid::Uuid::now_v7().to_string();
            response.headers_mut().extend(HeaderValue::from_str(&id).ok().map(|id| (super::SEQID, id)));
            response
        }
        Err(problem) => refused(problem),
    }
}

async fn relay(
    gateway: &Gateway,
    caller: &Caller,
    app: &App,
    path: String,
    request: Request,
) -> Result<Relayed, Problem> {
    let (parts, body) = request.into_parts();
    let allowed = caller.may_call(&path)?.text.clone();
    let bad_query = || Problem::new(Code::InvalidRequest, "The query cannot be read.");
    let Query(query) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map_err(|_| bad_query())?;
    if query.iter().any(|(name, _)| name.eq_ignore_ascii_case("access_token") || name == "cloudbase_access_token") {
        return Err(Problem::new(Code::InvalidRequest, "Leave the access token out: the gateway adds it."));
    }
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut headers = HeaderMap::new();
    headers.extend(parts.headers.get(CONTENT_TYPE).cloned().map(|value| (CONTENT_TYPE, value)));
    let (kept, upload): (Option<Bytes>, Upload) = match length {
        Some(length) if length > MAX_BODY as u64 => {
            return Err(Problem::new(Code::BodyTooLarge, "The relay takes 128 MiB at most."));
        }
        Some(length) if length > KEPT => (None, Upload::Streamed(Body::boxed(body))),
        // Short, or of a length that is not announced: WeChat wants to know it.
        _ => {
            let broken = |cause| Problem::new(Code::InvalidRequest, "The request body broke off.").caused_by(cause);
            let limited = http_body_util::Limited::new(body, MAX_BODY);
            let whole = limited.collect().await.map_err(broken)?.to_bytes();
            (Some(whole.clone()), Upload::Whole(whole))
        }
    };
    let length = kept.as_ref().map(|kept| kept.len() as u64).or(length).filter(|length| *length > 0);
    headers.extend(length.map(|length| (CONTENT_LENGTH, HeaderValue::from(length))));
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let call = Call { appid: app.appid.clone(), allowed, method: parts.method, path, query, headers };

    let (tokens, client) = (&gateway.kept().access_tokens, gateway.current().wechat().clone());
    let token = tokens.get(&client, app).await?;
    let mut answer = client.relay(&call, upload, &token).await?;
    // Whoever cannot be repeated still has the refused token dropped, for the next call.
    if answer.refused_token()
        && tokens.refused(app, &token)
        && let Some(kept) = kept
    {
        let another = tokens.get(&client, app).await?;
        answer = client.relay(&call, Upload::Whole(kept), &another).await?;
    }
    if let Some(error) = &answer.error {
        tracing::info!(service = caller.name, app = app.appid.as_str(), path = call.path, %error, "relayed an errcode");
    }
    Ok(answer)
}

/// Whether a path can be read in one way only: what is matched is what WeChat gets.
fn is_plain(path: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    path.strip_prefix('/').is_some_and(|path| {
        path.split('/').all(|part| !part.is_empty() && !matches!(part, "." | "..") && part.bytes().all(fits))
    })
}

/// Whether `path` is the allowed one, or lies below it where that ends in `/*`.
fn allows(allowed: &PathPattern, path: &str) -> bool {
    let mut parts = path.trim_start_matches('/').split('/');
    let same = allowed.segments.iter().all(|segment| match (segment, parts.next()) {
        (Segment::Literal(text), Some(part)) => text == part,
        (Segment::Any, Some(_)) => true,
        (_, None) => false,
    });
    same && (allowed.rest || parts.next().is_none())
}
