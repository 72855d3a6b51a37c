//! `cors` of a route: which pages of other origins may use it.

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, Uri};

use super::super::file;
use super::super::report::Report;
use super::super::section::Cors;
use super::super::value::{Wrong, duration_or_zero, method};
use super::shared::{list, time};

/// `cors` at `at`.
pub(super) fn cors(file: &file::Cors, at: &str, report: &mut Report<'_>) -> Cors {
    let key = |name: &str| format!("{at}.{name}");
    let headers = list(report, &key("headers"), file.headers.as_ref(), header);
    Cors {
        origins: list(report, &key("origins"), file.origins.as_ref(), origin),
        methods: list(report, &key("methods"), file.methods.as_ref(), method),
        headers: if file.headers.is_none() { vec![AUTHORIZATION, CONTENT_TYPE] } else { headers },
        expose: list(report, &key("expose"), file.expose.as_ref(), header),
        credentials: file.credentials.unwrap_or(false),
        max_age: time(report, &key("max_age"), file.max_age.as_ref(), "10m", duration_or_zero),
    }
}

/// An origin as browsers send it (RFC 6454, section 6.1): scheme, host, and a port only where it is not the default one.
fn origin(text: &str) -> Result<String, Wrong> {
    let example = "write it as browsers send it, such as \"https://m.example.com\"";
    if text.contains('*') {
        return Err(Wrong::new("is a pattern, and an origin must be exact", "write each origin on its own"));
    }
    if text == "null" {
        return Err(Wrong::new("is what any sandboxed page sends, so it would allow everybody", "remove it"));
    }
    let wrong = || Wrong::new("is not an origin", example);
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(wrong()) };
    let default = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return Err(wrong()),
    };
    // Also refuses paths, a slash at the end, user names and what the parser would have changed.
    if text != format!("{scheme}://{authority}") || authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(wrong());
    }
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Wrong::new("has upper-case letters, which browsers never send", "write it in lower case"));
    }
    if authority.port_u16() == Some(default) {
        return Err(Wrong::new("names the default port, which browsers leave out", "leave it out"));
    }
    Ok(text.to_owned())
}

fn header(text: &str) -> Result<HeaderName, Wrong> {
    // "*" is a token, too; with credentials it would mean a header of that name.
    let name = text.parse().ok().filter(|_| text != "*");
    name.ok_or_else(|| Wrong::new("is not a header name", "write each name on its own, such as \"content-type\""))
}
