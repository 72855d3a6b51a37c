//! `rewrite`, `redirect`, `headers`, `compress`, `allow` and `deny` of a route.

use http::header::{HOST, HeaderName, HeaderValue};
use http::uri::{Authority, Uri};
use http::{StatusCode, header};

use super::super::file::{self, Coding};
use super::super::pattern::{self, path};
use super::super::report::Report;
use super::super::section::{
    Compress, HeaderRules, Headers, Networks, PathPattern, PathTemplate, Piece, Redirect, Rewrite, Segment,
};
use super::super::value::{Wrong, client_network};
use super::super::{protected, url};
use super::shared::{bytes, list};

/// `rewrite`, on a route of this `pattern`.
pub(super) fn rewrite(
    file: &file::Rewrite,
    at: &str,
    pattern: Option<&PathPattern>,
    report: &mut Report<'_>,
) -> Rewrite {
    let own = |text: &str| template(text, pattern);
    let path = file.path.as_deref().and_then(|text| report.read(&format!("{at}.path"), text, own));
    let host = file.host.as_deref().and_then(|text| report.read(&format!("{at}.host"), text, authority));
    Rewrite { path, host }
}

/// A host, with a port or without.
fn authority(text: &str) -> Result<HeaderValue, Wrong> {
    let wrong = || Wrong::new("is not a host", "write a name such as \"orders.internal\" or \"orders.internal:8080\"");
    let authority: Authority = text.parse().map_err(|_| wrong())?;
    let host = authority.host();
    let named = pattern::host(host).is_ok() && !host.starts_with('*');
    let ported = authority.as_str().len() == host.len() || authority.port_u16().is_some();
    match named && ported && !authority.as_str().contains('@') {
        true => HeaderValue::from_str(text).map_err(|_| wrong()),
        false => Err(wrong()),
    }
}

/// A path whose `{segments}` and `/*` are those of `pattern`.
fn template(text: &str, pattern: Option<&PathPattern>) -> Result<PathTemplate, Wrong> {
    let parsed = path(text)?;
    let names = names(text);
    let Some(pattern) = pattern else {
        return Ok(PathTemplate { text: text.to_owned(), pieces: Vec::new(), rest: parsed.rest, slash: parsed.slash });
    };
    if parsed.rest && !pattern.rest {
        return Err(Wrong::new(
            "ends in /* and the route's path does not",
            "remove it, or let the route's path end so",
        ));
    }
    let known = self::names(&pattern.text);
    let mut names = names.into_iter();
    let pieces = parsed.segments.into_iter().map(|segment| {
        let name = names.next().unwrap_or_default();
        match segment {
            Segment::Literal(text) => Ok(Piece::Literal(text)),
            Segment::Any => match known.iter().position(|known| *known == name) {
                Some(nth) if known[nth + 1..].contains(&name) => {
                    Err(Wrong::new(format!("has {name}, which the route's path has twice"), "give them two names"))
                }
                Some(nth) => Ok(Piece::Segment(nth)),
                None => Err(Wrong::new(format!("has {name}, which the route's path has not"), "name it there too")),
            },
        }
    });
    let pieces = pieces.collect::<Result<_, _>>()?;
    Ok(PathTemplate { text: text.to_owned(), pieces, rest: parsed.rest, slash: parsed.slash })
}

/// The segments of a pattern as written.
fn names(text: &str) -> Vec<&str> {
    text.split('/').skip(1).collect()
}

/// `redirect`, on a route of this `pattern`.
pub(super) fn redirect(
    file: &file::Redirect,
    at: &str,
    pattern: Option<&PathPattern>,
    report: &mut Report<'_>,
) -> Option<Redirect> {
    let status = file.status.unwrap_or(307);
    let known = [301, 302, 303, 307, 308].contains(&status);
    if !known {
        let write = "write 301 or 308 (for good), 302, 303 or 307 (for now)";
        report.refuse(&format!("{at}.status"), &Wrong::new("is no redirect", write));
    }
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok())?;
    let read = |text: &str| target(text, pattern);
    let (origin, path) = report.read(&format!("{at}.to"), file.to.as_deref()?, read)?;
    Some(Redirect { status, origin, path })
}

/// Origin (empty for this host) and path.
fn target(text: &str, pattern: Option<&PathPattern>) -> Result<(String, PathTemplate), Wrong> {
    const WRITE: &str = "write a path such as \"/shop/*\", or a URL such as \"https://www.example.com/shop/*\"";
    let (origin, path) = match text.split_once("://") {
        None => (String::new(), text),
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let origin = format!("{scheme}://{host}");
            // A host is never made of what a client sends: that would send people wherever a link says.
            if host.contains(['{', '*']) {
                return Err(Wrong::new("has a host that a request could choose", "write the host out"));
            }
            url::base(&origin).map_err(|_| Wrong::new("is not an http or https URL", WRITE))?;
            origin.parse::<Uri>().map_err(|_| Wrong::new("is not a URL", WRITE))?;
            (origin, if path.is_empty() { "/" } else { path })
        }
    };
    if path.contains(['?', '#']) {
        return Err(Wrong::new("has a query or a fragment", "write the path alone; the query of the request is kept"));
    }
    let path = template(path, pattern)?;
    if origin.is_empty() && pattern.is_some_and(|pattern| pattern.text == path.text) {
        return Err(Wrong::new("is the route's own path, so it would go round in circles", "write another"));
    }
    Ok((origin, path))
}

/// `headers`; `cors` and `forward_token` of the same route have a word in it.
pub(super) fn headers(
    file: &file::Headers,
    at: &str,
    (cors, forward_token): (bool, bool),
    report: &mut Report<'_>,
) -> Headers {
    let request = |name: &HeaderName| match name {
        &header::AUTHORIZATION if forward_token => {
            Err(Wrong::silent("is the caller's own here", "remove this, or forward_token"))
        }
        &HOST => Err(Wrong::silent("says where the request goes", "write rewrite = { host = \"…\" }")),
        name => protected::request(name),
    };
    let response = |name: &HeaderName| match name.as_str().starts_with("access-control-") && cors {
        true => Err(Wrong::silent("is written by cors of this route", "write it there")),
        false => protected::response(name),
    };
    let none = file::HeaderRules::default();
    Headers {
        request: rules(file.request.as_ref().unwrap_or(&none), &format!("{at}.request"), request, report),
        response: rules(file.response.as_ref().unwrap_or(&none), &format!("{at}.response"), response, report),
    }
}

fn rules(
    file: &file::HeaderRules,
    at: &str,
    may: impl Fn(&HeaderName) -> Result<(), Wrong>,
    report: &mut Report<'_>,
) -> HeaderRules {
    let name = |text: &str| {
        let name: HeaderName = text.parse().map_err(|_| Wrong::new("is not the name of a header", "write a name"))?;
        may(&name).map(|()| name)
    };
    let line = |text: &str| {
        let (before, value) =
            text.split_once(':').ok_or_else(|| Wrong::silent("is not a header", "write \"Name: value\""))?;
        let mut value = HeaderValue::from_str(value.trim())
            .map_err(|_| Wrong::silent("has a value that no header can have", "write it in ASCII on one line"))?;
        value.set_sensitive(true);
        Ok((name(before.trim_end())?, value))
    };
    let set = list(report, &format!("{at}.set"), file.set.as_ref(), line);
    for (n, (name, _)) in set.iter().enumerate() {
        if set[..n].iter().any(|(earlier, _)| earlier == name) {
            report.fault(&format!("{at}.set"), format!("sets {name} twice; write the second under `add`"));
        }
    }
    HeaderRules {
        remove: list(report, &format!("{at}.remove"), file.remove.as_ref(), name),
        set,
        add: list(report, &format!("{at}.add"), file.add.as_ref(), line),
    }
}

/// `compress`.
pub(super) fn compress(file: &file::Compress, at: &str, report: &mut Report<'_>) -> Option<Compress> {
    let table = match file {
        file::Compress::Switch(false) => return None,
        file::Compress::Switch(true) => &file::Compression::default(),
        file::Compress::With(table) => table,
    };
    let may = |coding: Coding| table.codings.as_ref().is_none_or(|codings| codings.contains(&coding));
    let min_size = bytes(report, &format!("{at}.min_size"), table.min_size.as_ref(), ("0B", "1GiB")).unwrap_or(1 << 10);
    Some(Compress { min_size, gzip: may(Coding::Gzip), br: may(Coding::Br), zstd: may(Coding::Zstd) })
}

/// `allow` and `deny` of the route at `at`.
pub(super) fn networks(file: &file::Route, at: &str, report: &mut Report<'_>) -> Networks {
    Networks {
        allow: list(report, &format!("{at}.allow"), file.allow.as_ref(), client_network),
        deny: list(report, &format!("{at}.deny"), file.deny.as_ref(), client_network),
    }
}
