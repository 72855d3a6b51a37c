//! `[[app]]` and `[wechat]`: who may log in, and where WeChat is asked about them.

use std::path::Path;

use super::super::file;
use super::super::report::Report;
use super::super::secret;
use super::super::section::{App, WeChat};
use super::super::url::{self, base};
use super::super::value::{Wrong, duration};
use super::shared::{scalar, time};
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
pub(super) fn apps(files: Vec<file::App>, folder: &Path, report: &mut Report<'_>) -> (Vec<App>, Vec<Option<AppId>>) {
    let mut apps: Vec<App> = Vec::with_capacity(files.len());
    let mut seen: Vec<Option<AppId>> = Vec::with_capacity(files.len());
    for (n, file) in files.into_iter().enumerate() {
        let key = format!("app[{n}].appid");
        let appid = file.appid.and_then(|text| report.read(&key, &text, appid));
        if let (Some(_), Some(m)) = (&appid, seen.iter().position(|earlier| *earlier == appid)) {
            let other = report.refer(&format!("app[{m}].appid"));
            report.fault(&key, format!("is the same as {other}; write each app once"));
        }
        seen.push(appid.clone());
        let secret = file.secret.and_then(|from| app_secret(report, &format!("app[{n}].secret"), from, folder));
        if let (Some(appid), Some(secret)) = (appid, secret) {
            let access_token = file.access_token.unwrap_or_default();
            apps.push(App { appid, kind: file.kind.unwrap_or_default(), secret, access_token });
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
    let secret = match from {
        file::Secret::Text(secret) => secret,
        file::Secret::File(file) => {
            let from = |text: &str| url::file(text, folder).and_then(|path| secret::read(&path));
            report.read(&format!("{key}.file"), &file.file?, from)?
        }
    };
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
