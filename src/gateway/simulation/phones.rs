//! The people: they log in, ask, refresh, log out, show old tokens and many at once; an operator bans and gives roles.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use turmoil::net::TcpStream;

use super::book::{Moment, Outcome, RECOVERY};
use super::dice::Dice;
use super::instance::PORT;
use super::trouble::LAST;
use super::world::{World, gateway_name};

/// How long somebody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(9);

/// By then every gateway that can has started.
const BEGINNING: Duration = Duration::from_secs(2);

/// Until when people do things by themselves, ms.
const BUSY: u64 = 15_500;

/// Longest that one call may take once everything is well again.
const PROMPT: u64 = 2_000;

/// Somebody with a phone. Clones are the same people, with other dice.
#[derive(Clone)]
pub(super) struct Phone {
    world: Arc<World>,
}

impl Phone {
    pub(super) fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world) }
    }

    pub(super) fn world(&self) -> &Arc<World> {
        &self.world
    }

    fn moment(&self) -> Moment {
        Moment { ms: self.world.now(), order: self.world.next() }
    }

    fn say(&self, line: &str) {
        let now = self.world.now();
        self.world.book().told.push(format!("{now:>6} {line}"));
    }

    async fn call(&self, gateway: usize, path: &str, token: &str, body: &Value) -> (Outcome, String) {
        let asked = async {
            let stream = TcpStream::connect((gateway_name(gateway), PORT)).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let mut request = Request::post(path).header("host", "gateway").header("content-type", "application/json");
            if !token.is_empty() {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let body = if body.is_null() { Full::default() } else { Full::from(body.to_string()) };
            let response = sender.send_request(request.body::<Full<Bytes>>(body)?).await?;
            let status = response.status().as_u16();
            let text = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, String::from_utf8_lossy(&text).into_owned()))
        };
        match timeout(PATIENCE, asked).await {
            Ok(Ok((200..300, text))) => (Outcome::Done, text),
            Ok(Ok((status, text))) => {
                let problem: Value = serde_json::from_str(&text).unwrap_or_default();
                let code = problem["code"].as_str().unwrap_or("?").to_owned();
                let outcome = if status < 500 { Outcome::Refused(code) } else { Outcome::Unknown(code) };
                (outcome, text)
            }
            Ok(Err(error)) => (Outcome::Unknown(error.to_string()), String::new()),
            Err(_) => (Outcome::Unknown("no answer".to_owned()), String::new()),
        }
    }

    async fn log_in(&self, user: usize, code: &str, gateway: usize) -> Option<usize> {
        let from = self.moment();
        self.world.book().code_shown(code, from);
        let (outcome, text) = self.call(gateway, "/auth/login", "", &json!({ "code": code })).await;
        let session = self.world.book().logged_in((user, code, gateway), (from, self.moment()), &outcome, pair(&text));
        self.say(&format!("login of user {user} with {code} on gateway{gateway}: {outcome:?} session {session:?}"));
        session
    }

    async fn refresh(&self, session: usize, token: usize, gateway: usize) -> Outcome {
        let from = self.moment();
        let (show, shown) = {
            let mut book = self.world.book();
            (book.shown(session, token, from), book.sessions[session].tokens[token].text.clone())
        };
        let (outcome, text) = self.call(gateway, "/auth/refresh", "", &json!({ "refresh_token": shown })).await;
        self.say(&format!("refresh with token {token} of session {session} on gateway{gateway}: {outcome:?}"));
        let to = self.moment();
        self.world.book().refreshed((session, show, gateway), (from, to), &outcome, pair(&text));
        outcome
    }

    async fn check(&self, session: usize, gateway: usize) -> Outcome {
        let (from, token) = (self.moment(), self.world.book().sessions[session].access.clone());
        let (outcome, roles) = self.call(gateway, "/sim/check", &token, &Value::Null).await;
        self.say(&format!(
            "token of session {session} on gateway{gateway}: {outcome:?} {}",
            roles_of(&outcome, &roles)
        ));
        self.world.book().checked((session, gateway), (from, self.moment()), &outcome, &roles);
        outcome
    }

    async fn log_out(&self, session: usize, gateway: usize, dice: &mut Dice) {
        let (all, by_access) = (dice.one_in(4), dice.one_in(2));
        let (from, user) = (self.moment(), self.world.book().sessions[session].user);
        let (ending, access, refresh) = {
            let mut book = self.world.book();
            let ending = if all { book.ending(Some(user), None, from) } else { book.ending(None, Some(session), from) };
            let of = &book.sessions[session];
            let refresh = of.tokens.last().map(|token| token.text.clone()).unwrap_or_default();
            (ending, of.access.clone(), refresh)
        };
        let (outcome, _) = match by_access {
            true => self.call(gateway, "/auth/logout", &access, &json!({ "all": all })).await,
            false => self.call(gateway, "/auth/logout", "", &json!({ "all": all, "refresh_token": refresh })).await,
        };
        self.say(&format!("logout of session {session} (all: {all}) on gateway{gateway}: {outcome:?}"));
        // By a refresh token that nobody knows any more, "all" means nothing.
        let meant = !all || by_access || !self.world.book().may_be_lost(session);
        let outcome = if meant || outcome != Outcome::Done { outcome } else { Outcome::Refused("nobody".to_owned()) };
        let at = self.moment();
        self.world.book().ended(ending, gateway, at, &outcome);
    }

    /// What one person does.
    pub(super) async fn live(self, user: usize, mut dice: Dice) {
        sleep(BEGINNING).await;
        let (mut mine, mut logins) = (Vec::<usize>::new(), 0);
        while self.world.now() < BUSY {
            sleep(Duration::from_millis(dice.between(20, 500))).await;
            let gateway = dice.below(self.world.gateways);
            let what = if mine.is_empty() { 0 } else { dice.below(100) };
            let session = *mine.get(dice.below(mine.len().max(1))).unwrap_or(&0);
            match what {
                0..6 => {
                    logins += 1;
                    let code = format!("u{user}.{logins}");
                    let at_once = if dice.one_in(3) { dice.between(2, 5) } else { 1 };
                    let calls = (0..at_once).map(|_| self.log_in(user, &code, dice.below(self.world.gateways)));
                    let calls: Vec<_> = calls.collect();
                    let opened = join_all(calls).await;
                    mine.extend(opened.into_iter().flatten().next());
                    mine.dedup();
                    if dice.one_in(4) {
                        self.log_in(user, &code, gateway).await;
                    }
                }
                6..50 => drop(self.check(session, gateway).await),
                50..88 => {
                    let last = self.world.book().sessions[session].tokens.len() - 1;
                    // The newest; sometimes the one before it, and rarely any.
                    let token = match dice.below(12) {
                        0 | 1 => last.saturating_sub(1),
                        2 => dice.below(last + 1),
                        _ => last,
                    };
                    let at_once = if dice.one_in(4) { dice.between(2, 6) } else { 1 };
                    let calls: Vec<_> =
                        (0..at_once).map(|_| self.refresh(session, token, dice.below(self.world.gateways))).collect();
                    join_all(calls).await;
                }
                88..95 => self.log_out(session, gateway, &mut dice).await,
                _ => {
                    // Another device, or a new beginning.
                    if self.world.book().is_over(session) {
                        mine.retain(|other| *other != session);
                    }
                }
            }
        }
    }

    /// What operators do.
    pub(super) async fn operate(self, users: usize, mut dice: Dice) {
        sleep(BEGINNING).await;
        while self.world.now() < BUSY {
            sleep(Duration::from_millis(dice.between(300, 1500))).await;
            let (user, gateway) = (dice.below(users), dice.below(self.world.gateways));
            let is_member = self.world.book().sessions.iter().any(|session| session.user == user);
            match dice.below(20) {
                0 => {
                    let (from, path) = (self.moment(), "/sim/end-app");
                    let ending = self.world.book().ending(None, None, from);
                    let (outcome, _) = self.call(gateway, path, "", &Value::Null).await;
                    self.say(&format!("end of all on gateway{gateway}: {outcome:?}"));
                    let at = self.moment();
                    self.world.book().ended(ending, gateway, at, &outcome);
                }
                _ if !is_member => {}
                1..8 => self.ban(user, gateway, dice.one_in(2)).await,
                _ => {
                    let roles = ["", "vip", "editor"][dice.below(3)];
                    let from = self.moment();
                    self.world.book().roles_begin(user);
                    let path = format!("/sim/roles/m-o-u{user}/{roles}");
                    let (outcome, _) = self.call(gateway, &path, "", &Value::Null).await;
                    self.say(&format!("roles {roles:?} of user {user} on gateway{gateway}: {outcome:?}"));
                    let at = self.moment();
                    self.world.book().roles_done(user, gateway, (from, at), &outcome, roles);
                }
            }
        }
    }

    async fn ban(&self, user: usize, gateway: usize, banned: bool) {
        let from = self.moment();
        let ending = {
            let mut book = self.world.book();
            book.ban_begins(user);
            banned.then(|| book.ending(Some(user), None, from))
        };
        let path = format!("/sim/{}/m-o-u{user}", if banned { "ban" } else { "unban" });
        let (outcome, _) = self.call(gateway, &path, "", &Value::Null).await;
        self.say(&format!("banned: {banned} of user {user} on gateway{gateway}: {outcome:?}"));
        let at = self.moment();
        let mut book = self.world.book();
        if let Some(ending) = ending {
            book.ended(ending, gateway, at, &outcome);
        }
        book.ban_done(user, gateway, at, &outcome, banned);
    }

    /// When everything is mended, everything works; what was over stays over.
    pub(super) async fn reckon(&self, mut dice: Dice) {
        let left = (LAST + RECOVERY + 200).saturating_sub(self.world.now());
        sleep(Duration::from_millis(left)).await;
        let begun = self.world.now();
        let known = self.world.book().sessions.len();
        for session in 0..known {
            let gateway = dice.below(self.world.gateways);
            self.check(session, gateway).await;
            let last = self.world.book().sessions[session].tokens.len() - 1;
            self.refresh(session, last, dice.below(self.world.gateways)).await;
            self.check(session, gateway).await;
        }
        for gateway in 0..self.world.gateways {
            let user = self.world.book().add_user();
            let Some(session) = self.log_in(user, &format!("u{user}.1"), gateway).await else { continue };
            for other in 0..self.world.gateways {
                self.check(session, other).await;
                let last = self.world.book().sessions[session].tokens.len() - 1;
                self.refresh(session, last, other).await;
            }
            self.log_out(session, gateway, &mut Dice::new(1)).await;
            sleep(Duration::from_millis(1_100)).await;
            for other in 0..self.world.gateways {
                self.check(session, other).await;
            }
        }
        let calls = u64::try_from(known).unwrap() * 3 + 40;
        assert!(self.world.now() - begun < calls * PROMPT, "the end took too long");
    }
}

fn roles_of(outcome: &Outcome, roles: &str) -> String {
    if *outcome == Outcome::Done { format!("{roles:?}") } else { String::new() }
}

/// Refresh and access token of an answer.
fn pair(text: &str) -> Option<(String, String)> {
    let answer: Value = serde_json::from_str(text).ok()?;
    let token = |name: &str| answer[name].as_str().map(ToOwned::to_owned);
    Some((token("refresh_token")?, token("access_token")?))
}
