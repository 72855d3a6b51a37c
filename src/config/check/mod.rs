//! What the keys of `gateway.toml` mean: defaults, ranges, and the rules between them.
//!
//! Every section is built in full even when it has faults, with its default in the place of what was refused, so that
//! one run finds everything. Such a [`Config`] never leaves [`super::load()`]: one fault discards it. A required key that
//! is missing here has been reported by [`super::structure`].

mod app;
mod cors;
mod hook;
mod internal;
mod limit;
mod login;
mod master_key;
mod pages;
mod route;
mod server;
mod shared;
mod statics;
mod telemetry;
mod tls;
mod token;
mod transform;
mod transport;
mod upstream;

use std::path::Path;

use super::file::File;
use super::report::Report;
use super::section::{Config, LimitScope, Shown};

/// Checks `file`, read from `path`.
pub(super) fn file(file: File, path: &Path, report: &mut Report<'_>) -> Config {
    let source = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = source.parent().unwrap_or(Path::new("/")).to_owned();

    let scopes = scopes(&file);
    let public = file.server.unwrap_or_default();
    let server = server::server(&public, &folder, report);
    let admin = server::admin(&file.admin.unwrap_or_default(), report);
    let internal = file.internal.map(|table| internal::internal(table, &folder, report));
    server::distinct(&public, &admin, internal.as_ref(), report);

    let token = token::token(file.token.unwrap_or_default(), &folder, report);
    let store = token::store(&file.store.unwrap_or_default(), &folder, report);
    limit::scopes(&store.sessions, &scopes, report);
    let wechat = app::wechat(&file.wechat.unwrap_or_default(), report);
    let telemetry = telemetry::telemetry(file.telemetry.unwrap_or_default(), &folder, report);
    let upstreams = upstream::upstreams(&file.upstream.unwrap_or_default(), &folder, report);
    let (apps, appids) = app::apps(file.app.unwrap_or_default(), &token, &upstreams, &folder, report);
    let around = route::Around { server: &server, upstreams: &upstreams, audience: &token.audience, appids: &appids };
    let routes = route::routes(&file.route.unwrap_or_default(), &around, report);
    let statics = statics::statics(&file.statics.unwrap_or_default(), &server, &routes, &folder, report);
    let error_pages = pages::pages(&file.error_page.unwrap_or_default(), &folder, report);
    let login = login::login(&file.login.unwrap_or_default(), &server, &routes, &statics, report);

    Config {
        source,
        digest: 0,
        shown: Shown::default(),
        server,
        admin,
        internal,
        token,
        store,
        login,
        wechat,
        telemetry,
        apps,
        upstreams: upstreams.into_iter().flatten().collect(),
        routes: routes.into_iter().flatten().collect(),
        statics,
        error_pages,
    }
}

/// Every limit that says who counts together, and where it stands.
fn scopes(file: &File) -> Vec<(String, Option<LimitScope>)> {
    let login = file.login.as_ref().and_then(|login| login.limit.as_ref());
    let routes = file.route.iter().flatten().enumerate();
    let of_routes = routes.filter_map(|(n, route)| Some((format!("route[{n}].limit"), route.limit.as_ref()?.scope)));
    login.map(|limit| ("login.limit".to_owned(), limit.scope)).into_iter().chain(of_routes).collect()
}
