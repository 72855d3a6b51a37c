//! The gateway's own endpoints: login, refresh, logout, the member and their data, keys.
//!
//! They run on the control runtime, never on a worker: a slow store or a slow WeChat does not hold proxied traffic. Each
//! file is one endpoint; a handler names its collaborators and knows nothing of their insides: no SQL, no JSON of WeChat,
//! no signing.

pub mod answer;
pub mod call;
pub mod check;
pub mod cookie;
pub mod ending;
mod exclusive;
pub mod follower;
pub mod hook;
pub mod keys;
pub mod login;
pub mod logout;
pub mod lookup;
pub mod member;
pub mod on_behalf;
pub mod open_data;
mod openapi;
mod openapi_schema;
mod opening;
pub mod operate;
pub mod phone;
pub mod profile;
pub mod push;
pub mod refresh;
pub mod renewal;
mod roles;
mod seen;
pub mod session_keys;
pub mod single_flight;
mod user_data;
pub mod wafer2;
pub mod web;
mod welcome;

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::clock::{Clock, Setbacks};
use crate::config;
use crate::limiter::Limit;
use crate::metrics::Metrics;
use crate::store::joint::Joint;
use crate::store::shared::Shared;
use crate::store::vault::Vault;
use crate::store::{Members, Sessions};
use crate::token::handle::Handles;
use crate::token::keys::KeyRing;
use crate::token::mint::Minter;
use crate::token::refresh::RefreshSecret;
use crate::token::renewal::Renewals;
use crate::token::revocation::Revocations;
use crate::token::verify::Verifier;
use crate::wechat;

pub use call::CallInfo;

/// What the endpoints work with.
#[derive(Debug)]
pub struct Auth {
    /// `[token]`.
    pub section: config::Token,
    /// `[[app]]`.
    pub apps: Vec<config::App>,
    /// `[server] base`: where the endpoints stand.
    pub base: String,
    /// Time.
    pub clock: Clock,
    /// Who is a member.
    pub members: Arc<dyn Members>,
    /// Who is logged in.
    pub sessions: Arc<dyn Sessions>,
    /// Both, where they are in one database.
    pub joint: Option<Arc<dyn Joint>>,
    /// What instances have in common.
    pub shared: Arc<dyn Shared>,
    /// Seals session_key.
    pub vault: Arc<Vault>,
    /// `[wechat] open_base`: where browsers are sent.
    pub open_base: String,
    /// WeChat.
    pub wechat: wechat::Client,
    /// The apps' credentials there.
    pub access_tokens: Arc<wechat::AccessTokens>,
    /// The keys, for the JWKS.
    pub ring: Arc<KeyRing>,
    /// Makes access tokens.
    pub minter: Minter,
    /// Checks them.
    pub verifier: Arc<Verifier>,
    /// Issues and knows opaque ones, whatever the format of new ones is.
    pub handles: Arc<Handles>,
    /// Whom those stand for. Outlives a reload.
    pub lookups: Arc<lookup::Lookups>,
    /// Makes refresh tokens.
    pub refresh: RefreshSecret,
    /// Tokens that ended before their time.
    pub revocations: Arc<Revocations>,
    /// Is told of newer tokens of a session.
    pub renewals: Arc<Renewals>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// `[login] merge_by_unionid`.
    pub merge_by_unionid: bool,
    /// `[login] max_sessions`.
    pub max_sessions: Option<NonZeroU32>,
    /// Whom to ask at each login.
    pub hook: Option<hook::Hook>,
    /// How often each app may log in.
    pub login_limit: Option<Arc<Limit>>,
    /// Logins under way, by code. Outlives a reload: a race does not end because a file was saved.
    pub logins: Arc<login::Logins>,
    /// Whether the clock was set back. Outlives a reload.
    pub setbacks: Arc<Setbacks>,
    /// Pushed messages that were delivered, and that are on their way. Outlives a reload, too.
    pub pushes: Arc<push::Pushes>,
    /// The way of pushed messages to the upstreams.
    pub deliver: push::Deliver,
    /// Exchanges of `login_code` under way.
    pub exchanges: Arc<session_keys::Exchanges>,
    /// Web logins under way. Outlives a reload.
    pub web: Arc<web::WebLogins>,
    /// Who follows which official account. Outlives a reload.
    pub followers: Arc<follower::Followers>,
    /// Tokens of pages.
    pub cookies: cookie::Cookies,
    /// How often each member may decrypt.
    pub decryptions: Arc<Limit>,
}

/// The endpoints under `base`, the well-known ones, and the login of clients of the wafer2 SDK where it is to stand.
pub fn router(auth: Arc<Auth>, base: &str, wafer2: Option<&str>) -> Router {
    let endpoints = Router::new()
        .route("/login", post(login::login))
        .route("/refresh", post(refresh::refresh))
        .route("/logout", post(logout::logout))
        .route("/revoke", post(logout::revoke))
        .route("/push/{appid}", get(push::check).post(push::receive))
        .route("/web/{appid}/start", get(web::start::start))
        .route("/web/{appid}/callback", get(web::callback::callback))
        .route("/profile", post(profile::profile))
        .route("/phone", post(phone::phone))
        .route("/open-data", post(open_data::open_data))
        .route("/check", post(check::check))
        .route("/me", get(member::me).put(member::update).delete(member::erase));
    let endpoints = if base.is_empty() { endpoints } else { Router::new().nest(base, endpoints) };
    let endpoints = match wafer2 {
        Some(path) => endpoints.route(path, get(wafer2::login).post(wafer2::login)),
        None => endpoints,
    };
    endpoints
        .route("/.well-known/jwks.json", get(keys::jwks))
        .route("/.well-known/oauth-authorization-server", get(keys::metadata))
        .route("/openapi.json", get(openapi::openapi))
        .fallback(answer::not_found)
        .method_not_allowed_fallback(answer::method_not_allowed)
        .with_state(auth)
}
