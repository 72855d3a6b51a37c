//! What each step of a request costs by itself: for comparing two versions of one step, on one machine, in one run.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use divan::{Bencher, black_box};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use wxgate::clock::Clock;
use wxgate::config::{self, Algorithm, Environment, PathPattern, Segment};
use wxgate::ids::{AppId, MemberId, OpenId, SessionId, UnionId};
use wxgate::pipeline::matcher::Matcher;
use wxgate::pipeline::{hygiene, path};
use wxgate::token::Grant;
use wxgate::token::cache::VerifiedCache;
use wxgate::token::handle::Handles;
use wxgate::token::keys::KeyRing;
use wxgate::token::mint::Minter;
use wxgate::token::refresh::RefreshSecret;
use wxgate::token::verify::Verifier;

fn main() {
    divan::main();
}

/// A head as `wx.request` sends it.
fn head() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    for (name, value) in [
        ("host", "api.example.com"),
        ("connection", "keep-alive"),
        ("content-type", "application/json"),
        ("authorization", "Bearer x"),
        ("user-agent", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) MicroMessenger/8.0.54 Language/zh_CN"),
        ("referer", "https://servicewechat.com/wx0123456789abcdef/12/page-frame.html"),
        ("accept-encoding", "gzip,compress,br,deflate"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-wx-openid", "spoofed"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

#[divan::bench]
fn hygiene_of_a_head(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(head).bench_refs(|headers| hygiene::clean(black_box(headers)));
}

#[divan::bench(args = ["/api/orders/42/items", "/api//orders/%2e%2e/x"])]
fn canonical_path(text: &str) -> usize {
    path::canonical(black_box(text)).map_or(0, |p| p.len())
}

#[divan::bench(args = [1, 100, 10_000])]
fn match_one_of_routes(bencher: Bencher<'_, '_>, routes: usize) {
    let mut matcher = Matcher::default();
    for n in 0..routes {
        let segments = vec![Segment::Literal("api".to_owned()), Segment::Literal(format!("service{n}"))];
        let pattern = PathPattern { text: String::new(), segments, rest: true, slash: false };
        matcher.insert(&[], &pattern, &[], &n);
    }
    let wanted = format!("/api/service{}/orders/42", routes - 1);
    bencher.bench(|| {
        let found = matcher.find(black_box("api.example.com"), black_box(&wanted), &Method::GET);
        matches!(found, wxgate::pipeline::matcher::Found::Match(_))
    });
}

fn section(dir: &std::path::Path, algorithm: Algorithm) -> config::Token {
    config::Token {
        issuer: "https://api.example.com".to_owned(),
        audience: vec!["wxgate".to_owned()],
        algorithm,
        format: config::TokenFormat::Jwt,
        keys: config::Keys::Folder(dir.to_owned()),
        access_ttl: Duration::from_secs(7200),
        refresh_ttl: Duration::from_secs(86400),
        refresh_grace: Duration::from_secs(30),
        session_ttl: Duration::from_secs(86400),
        rotate_every: None,
        renew_within: None,
        max_staleness: Duration::from_secs(7200),
        accept_bare: false,
    }
}

/// A verifier and a token of its own.
fn token_of(algorithm: Algorithm) -> (tempfile::TempDir, Verifier, String, Clock) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let section = section(dir.path(), algorithm);
    let ring = Arc::new(KeyRing::open(dir.path(), algorithm, &clock).unwrap());
    let minted = Minter::new(Arc::clone(&ring), &section, clock.clone()).mint(&grant(&clock)).unwrap();
    let verifier = Verifier::new(ring, &section, clock.clone());
    (dir, verifier, minted.token.expose().clone(), clock)
}

fn grant(clock: &Clock) -> Grant {
    let now = clock.now();
    Grant {
        member_id: MemberId::new_v7(),
        session_id: SessionId::new_v7(now),
        appid: AppId::parse("wx0123456789abcdef").unwrap(),
        openid: OpenId::parse("oABCDEFGHIJKLMNOPQRSTUVWXYZ1").unwrap(),
        unionid: Some(UnionId::parse("uABCDEFGHIJKLMNOPQRSTUVWXYZ1").unwrap()),
        user_id: None,
        claims: String::new(),
        roles: Vec::new(),
        auth_time: now,
        session_expires_at: now.plus(Duration::from_secs(86400)),
    }
}

#[divan::bench(args = ["HS256", "ES256", "RS256", "EdDSA"])]
fn verify_a_token(bencher: Bencher<'_, '_>, name: &str) {
    let algorithm = *Algorithm::ALL.iter().find(|a| a.name() == name).unwrap();
    let (_dir, verifier, token, _) = token_of(algorithm);
    bencher.bench(|| verifier.verify(black_box(token.as_bytes())).is_ok());
}

#[divan::bench]
fn find_a_verified_token(bencher: Bencher<'_, '_>) {
    let (_dir, verifier, token, clock) = token_of(Algorithm::Hs256);
    let cache = VerifiedCache::default();
    cache.insert(token.clone().into(), Arc::new(verifier.verify(token.as_bytes()).unwrap()));
    bencher.bench(|| cache.get(black_box(token.as_bytes()), clock.now()).is_some());
}

/// Ours, and one that somebody made up.
#[divan::bench(args = [true, false])]
fn read_a_handle(bencher: Bencher<'_, '_>, ours: bool) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let section = section(dir.path(), Algorithm::Es256);
    let ring = Arc::new(KeyRing::open(dir.path(), Algorithm::Es256, &clock).unwrap());
    let handles = Arc::new(Handles::new(&RefreshSecret::open(dir.path()).unwrap(), &section, clock.clone()));
    let minter = Minter::new(ring, &section, clock.clone()).issuing(Arc::clone(&handles));
    let mut token = minter.mint(&grant(&clock)).unwrap().token.expose().clone().into_bytes();
    if !ours {
        token[20] ^= 1;
    }
    bencher.bench(|| handles.read(black_box(&token)).is_ok());
}

#[divan::bench(args = [10, 1_000])]
fn load_a_configuration(bencher: Bencher<'_, '_>, routes: usize) {
    let mut text = String::from(
        "[token]\nissuer = \"https://api.example.com\"\n[[app]]\nappid = \"wx0123456789abcdef\"\nsecret = \"s\"\n\
         [[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:1\"]\n",
    );
    for n in 0..routes {
        text.push_str(&format!("[[route]]\npath = \"/api/service{n}/*\"\nupstream = \"a\"\n"));
    }
    let environment = Environment::of([]);
    bencher.bench(|| config::parse(black_box(&text), "gateway.toml".as_ref(), &environment).is_ok());
}
