//! `[[app]]` and `[wechat]`: who may log in, and where WeChat is asked about them.

use std::path::Path;

use super::super::file;
use super::super::pattern::exact_path;
use super::super::report::Report;
use super::super::section::{App, AppKind, Push, Token, Upstream, WeChat, WebLogin, WebScope};
use super::super::url::{base, is_loopback_http, origin};
use super::super::value::{Wrong, duration};
use super::shared::{list, scalar, secret, time};
use super::upstream::named;
use crate::ids::{AppId, Secret};

/// `[wechat]`.
pub(super) fn wechat(file: &file::WeChat, report: &mut Report<'_>) -> WeChat {
    let mut url = |key: &str, text: Option<&str>, default| scalar(report, key, text, default, base).unwrap_or_default();
    WeChat {
        api_base: url("wechat.api_base", file.api_base.as_deref(), "https://api.weixin.qq.com"),
        open_base: url("wechat.open_base", file.open_base.as_deref(), "https://open.weixin.qq.com"),
        timeout: time(report, "wechat.timeout", file.timeout.as_ref(), "5s", duration),
    }
}

/// `[[app]]`, and the appid of each at its place in the file, which is known even when its secret is faulty.
pub(super) fn apps(
    files: Vec<file::App>,
    token: &Token,
    upstreams: &[Option<Upstream>],
    folder: &Path,
    report: &mut Report<'_>,
) -> (Vec<App>, Vec<Option<AppId>>) {
    let mut apps: Vec<App> = Vec::with_capacity(files.len());
    let mut seen: Vec<Option<AppId>> = Vec::with_capacity(files.len());
    for (n, file) in files.into_iter().enumerate() {
        let key = format!("app[{n}].appid");
        let web = web(&file, &format!("app[{n}]"), &token.issuer, report);
        let appid = file.appid.and_then(|text| report.read(&key, &text, appid));
        if let (Some(_), Some(m)) = (&appid, seen.iter().position(|earlier| *earlier == appid)) {
            let other = report.refer(&format!("app[{m}].appid"));
            report.fault(&key, format!("is the same as {other}; write each app once"));
        }
        seen.push(appid.clone());
        let secret = file.secret.and_then(|from| app_secret(report, &format!("app[{n}].secret"), from, folder));
        let push = file.push.and_then(|table| push(table, &format!("app[{n}].push"), upstreams, folder, report));
        if let (Some(appid), Some(secret)) = (appid, secret) {
            let access_token = file.access_token.unwrap_or_default();
            apps.push(App { appid, kind: file.kind.unwrap_or_default(), secret, push, access_token, web });
        }
    }
    (apps, seen)
}

/// `wx` and 16 hexadecimal digits as WeChat hands them out; test accounts and simulators are less regular.
fn appid(text: &str) -> Result<AppId, Wrong> {
    let wrong = || Wrong::new("is not an AppID", "write it as WeChat shows it, such as \"wx0123456789abcdef\"");
    let rest = text.strip_prefix("wx").ok_or_else(wrong)?;
    if !(6..=30).contains(&rest.len()) || !rest.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(wrong());
    }
    AppId::parse(text).map_err(|_| wrong())
}

fn app_secret(report: &mut Report<'_>, key: &str, from: file::Secret, folder: &Path) -> Option<Secret<String>> {
    let secret = secret(report, key, from, folder)?;
    if secret.expose().is_empty() {
        report.fault(key, "is empty; write \"${WX_SECRET}\" and set that environment variable");
        return None;
    }
    if !secret.expose().bytes().all(|b| b.is_ascii_graphic()) {
        report.fault(key, "has a space, a line break or another character that no AppSecret has; copy it again");
        return None;
    }
    Some(secret)
}

/// `origins` and `scope` of an app.
fn web(file: &file::App, at: &str, issuer: &str, report: &mut Report<'_>) -> Option<WebLogin> {
    let (origins_key, scope_key) = (format!("{at}.origins"), format!("{at}.scope"));
    let origins = list(report, &origins_key, file.origins.as_ref(), origin);
    let kind = file.kind.unwrap_or_default();
    if file.scope.is_some() && kind != AppKind::OfficialAccount {
        report.fault(&scope_key, "is for kind = \"official-account\" alone; remove it");
    }
    let scope = match kind {
        AppKind::MiniProgram if !origins.is_empty() => {
            let what =
                "a mini program has no web login; remove it, or write kind = \"official-account\" or \"website\"";
            report.fault(&origins_key, what);
            return None;
        }
        AppKind::MiniProgram => return None,
        AppKind::OfficialAccount => file.scope.unwrap_or_default(),
        AppKind::Website => WebScope::Login,
    };
    if origins.is_empty() {
        return None;
    }
    if issuer.starts_with("http:") && !is_loopback_http(issuer) {
        let issuer = report.refer("token.issuer");
        let what = format!("a web login needs a Secure cookie, and {issuer} is plain http; write an https issuer");
        report.fault(&origins_key, what);
    }
    Some(WebLogin { origins, scope })
}

/// `push` of an app.
fn push(
    file: file::Push,
    at: &str,
    upstreams: &[Option<Upstream>],
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<Push> {
    let key = |name: &str| format!("{at}.{name}");
    let is_text = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let token = file.token.and_then(|from| secret(report, &key("token"), from, folder));
    if token.as_ref().is_some_and(|token| !is_text(token.expose(), 3..=32)) {
        report.fault(&key("token"), "is no Token: it has 3 to 32 letters and digits; copy it from the WeChat console");
    }
    if file.previous_aes_key.is_some() && file.aes_key.is_none() {
        report.fault(&key("previous_aes_key"), "is of no use without aes_key; write aes_key, too, or remove it");
    }
    let mut encoding_aes_key = |name: &str, from: Option<file::Secret>| {
        let read = secret(report, &key(name), from?, folder);
        if read.as_ref().is_some_and(|aes_key| !is_text(aes_key.expose(), 43..=43)) {
            let what = "is no EncodingAESKey: it has 43 letters and digits; copy it from the WeChat console";
            report.fault(&key(name), what);
        }
        read
    };
    let aes_key = encoding_aes_key("aes_key", file.aes_key);
    let previous_aes_key = encoding_aes_key("previous_aes_key", file.previous_aes_key);
    let upstream = file.upstream.and_then(|name| named(&name, &key("upstream"), upstreams, report));
    let path = file.path.and_then(|text| report.read(&key("path"), &text, exact_path));
    Some(Push { token: token?, aes_key, previous_aes_key, upstream: upstream?, path: path? })
}
