//! What clients were told, and what must hold because of it.
//!
//! Every call is written down when it begins and when it ends. An answer is judged against all that was answered before the
//! call began; what was asked and not answered may have happened or may happen yet, and is held against nobody.

use std::collections::HashMap;

use super::known::Known;
use super::trouble::Troubles;
use super::world::{GRACE, MAX_STALENESS, TICK};

/// How soon a revocation is in force on the other instances, ms.
const HEARD: u64 = 1_000;

/// How soon everything works again once what was broken is mended, ms.
pub(super) const RECOVERY: u64 = 5_000;

const STEP: u64 = TICK.as_millis() as u64;

/// A moment: the time in ms, and the place in the order of all that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) ms: u64,
    pub(super) order: u64,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// 2xx.
    Done,
    /// The code of a problem below 500.
    Refused(String),
    /// 5xx, or no answer: it may be done or not, now or later.
    Unknown(String),
}

#[derive(Debug)]
pub(super) struct Token {
    pub(super) text: String,
    first_shown: Option<Moment>,
    first_answered: Option<Moment>,
    successor: Option<usize>,
}

/// A token that was shown and may have been taken for reuse.
#[derive(Debug)]
struct Show {
    token: usize,
    /// When its answer came; `None` as long as there is none.
    end: Option<u64>,
    rotated: bool,
}

/// A session as clients know it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) user: usize,
    opened: Moment,
    pub(super) tokens: Vec<Token>,
    shows: Vec<Show>,
    pub(super) access: String,
    /// When and where its end was answered.
    over: Option<(Moment, usize)>,
    /// Its end was asked for, or may have come with something else.
    pub(super) doubtful: bool,
    /// The store lost everything while it was opened.
    perhaps_lost: bool,
}

/// A login code.
#[derive(Debug, Clone, Copy)]
struct Code {
    first_shown: Moment,
    /// How often it was.
    shows: u32,
    led_to: Option<usize>,
}

/// Something that ends sessions.
#[derive(Debug)]
struct Ending {
    /// `None`: of everybody.
    user: Option<usize>,
    session: Option<usize>,
    begun: Moment,
    answered: Option<Moment>,
}

#[derive(Debug)]
struct User {
    banned: Known<bool>,
    roles: Known<String>,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Book {
    /// How far the clocks of two gateways may be apart, ms.
    skew: u64,
    pub(super) troubles: Troubles,
    pub(super) sessions: Vec<Session>,
    users: Vec<User>,
    endings: Vec<Ending>,
    codes: HashMap<String, Code>,
    /// When the store lost everything.
    losses: Vec<Moment>,
    /// What was done, for people.
    pub(super) told: Vec<String>,
    /// The first promise that was broken.
    pub(super) broken: Option<String>,
    /// How many calls were answered with 2xx, were refused, and neither.
    pub(super) counts: [usize; 3],
}

impl Book {
    pub(super) fn new(skew: u64) -> Self {
        Self {
            skew,
            troubles: Troubles::default(),
            sessions: Vec::new(),
            users: Vec::new(),
            endings: Vec::new(),
            codes: HashMap::new(),
            losses: Vec::new(),
            told: Vec::new(),
            broken: None,
            counts: [0; 3],
        }
    }

    pub(super) fn add_user(&mut self) -> usize {
        let beginning = Moment { ms: 0, order: 0 };
        self.users
            .push(User { banned: Known::Since(beginning, 0, false), roles: Known::Since(beginning, 0, String::new()) });
        self.users.len() - 1
    }

    pub(super) fn store_lost_everything(&mut self, at: Moment) {
        self.losses.push(at);
    }

    fn wrong(&mut self, what: String) {
        self.told.push(format!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }

    /// Whether the gateway was in no trouble all the time, and long enough before that all must be well.
    fn calm(&self, gateway: usize, from: Moment, to: Moment) -> bool {
        self.troubles.none(gateway, from.ms.saturating_sub(RECOVERY), to.ms)
    }

    /// Whether what became so `at` somewhere must be known at a gateway by `now`.
    fn heard(&self, gateway: usize, at: u64, now: u64) -> bool {
        self.troubles.last(gateway, now).is_some_and(|last| now > (at + HEARD).max(last + RECOVERY) + STEP)
    }

    /// The loss that took this session with it.
    fn loss(&self, session: usize) -> Option<Moment> {
        let opened = self.sessions[session].opened;
        self.losses.iter().copied().find(|loss| loss.order > opened.order)
    }

    /// Whether a refusal of this session is nobody's fault at `now`.
    pub(super) fn may_be_over(&self, session: usize, now: Moment) -> bool {
        let of = &self.sessions[session];
        of.over.is_some() || of.doubtful || self.loss(session).is_some() || self.may_be_reused(session, now)
    }

    /// Whether the store may have lost what it knew of this session.
    pub(super) fn may_be_lost(&self, session: usize) -> bool {
        self.sessions[session].perhaps_lost || self.loss(session).is_some()
    }

    /// Whether the end of this session was answered.
    pub(super) fn is_over(&self, session: usize) -> bool {
        self.sessions[session].over.is_some()
    }

    /// Whether one of its tokens may have been taken for reuse, since it was shown (or may arrive) too late.
    fn may_be_reused(&self, session: usize, now: Moment) -> bool {
        let of = &self.sessions[session];
        of.shows.iter().filter(|show| !show.rotated).any(|show| {
            let token = &of.tokens[show.token];
            let end = show.end.unwrap_or(now.ms);
            let too_late = token.first_shown.is_some_and(|first| end + self.skew >= first.ms + GRACE);
            let used = token.successor.and_then(|next| of.tokens[next].first_shown).is_some_and(|used| used.ms <= end);
            too_late || used
        })
    }

    fn count(&mut self, outcome: &Outcome) {
        let which = match outcome {
            Outcome::Done => 0,
            Outcome::Refused(_) => 1,
            Outcome::Unknown(_) => 2,
        };
        self.counts[which] += 1;
    }

    /// An answer had to come, and none did.
    fn must_answer(&mut self, what: &str, gateway: usize, from: Moment, to: Moment, outcome: &Outcome) {
        self.count(outcome);
        if let Outcome::Unknown(why) = outcome
            && self.calm(gateway, from, to)
        {
            self.wrong(format!("{what} got no answer from gateway{gateway} while all was well: {why}"));
        }
    }

    // --- logins -----------------------------------------------------------------------------------------------------

    pub(super) fn code_shown(&mut self, code: &str, at: Moment) {
        let fresh = Code { first_shown: at, shows: 0, led_to: None };
        self.codes.entry(code.to_owned()).or_insert(fresh).shows += 1;
    }

    /// A login ended; `tokens` are refresh and access token. Returns the session.
    pub(super) fn logged_in(
        &mut self,
        (user, code, gateway): (usize, &str, usize),
        (from, to): (Moment, Moment),
        outcome: &Outcome,
        tokens: Option<(String, String)>,
    ) -> Option<usize> {
        let Code { first_shown, shows, led_to } = self.codes[code];
        // Where several have the code, one that was cut off may hold the claim to it without knowing.
        if shows == 1 || self.troubles.none_at_all(first_shown.ms.saturating_sub(RECOVERY), to.ms) {
            self.must_answer("a login", gateway, first_shown, to, outcome);
        }
        match (outcome, tokens) {
            (Outcome::Done, Some((refresh, access))) => {
                if let Known::Since(since, _, true) = self.users[user].banned
                    && since.order < from.order
                {
                    self.wrong(format!("user {user} logged in under a ban"));
                }
                if let Some(session) = led_to {
                    if self.sessions[session].tokens[0].text != refresh {
                        self.wrong(format!("code {code} led to two sessions"));
                    }
                    return Some(session);
                }
                let lost = self.losses.iter().any(|loss| {
                    // Opened while the store lost everything, or before everybody knew.
                    loss.order > from.order || to.ms < self.troubles.end_of_loss(loss.ms) + RECOVERY + HEARD + self.skew
                });
                let ended = self.ending_since(user, from);
                let first = Token { text: refresh, first_shown: None, first_answered: None, successor: None };
                self.sessions.push(Session {
                    user,
                    opened: to,
                    tokens: vec![first],
                    shows: Vec::new(),
                    access,
                    over: None,
                    doubtful: lost || ended,
                    perhaps_lost: lost,
                });
                let session = self.sessions.len() - 1;
                self.codes.insert(code.to_owned(), Code { first_shown, shows, led_to: Some(session) });
                return Some(session);
            }
            (Outcome::Refused(code), _) if code == "member_banned" => {
                if let Known::Since(since, _, false) = self.users[user].banned
                    && since.order < from.order
                {
                    self.wrong(format!("user {user} was refused as banned and is not"));
                }
            }
            (Outcome::Refused(why), _) => {
                // Another call of the code may have used it up and died.
                let over = led_to.is_some_and(|session| self.may_be_over(session, to));
                let banned = !matches!(self.users[user].banned, Known::Since(since, _, false) if since.order < first_shown.order);
                let ended = self.ending_since(user, first_shown);
                if !over
                    && !banned
                    && !ended
                    && self.troubles.none_at_all(first_shown.ms.saturating_sub(RECOVERY), to.ms)
                {
                    self.wrong(format!("a login of user {user} was refused: {why}"));
                }
            }
            _ => {}
        }
        None
    }

    /// Whether the end of all that this user has was under way then, or later.
    fn ending_since(&self, user: usize, from: Moment) -> bool {
        self.endings.iter().any(|ending| {
            ending.session.is_none()
                && ending.user.is_none_or(|of| of == user)
                && ending.answered.is_none_or(|answered| answered.order > from.order)
        })
    }

    // --- refreshes ---------------------------------------------------------------------------------------------------

    /// A refresh token is shown; returns the number of the show.
    pub(super) fn shown(&mut self, session: usize, token: usize, at: Moment) -> usize {
        let of = &mut self.sessions[session];
        of.tokens[token].first_shown.get_or_insert(at);
        of.shows.push(Show { token, end: None, rotated: false });
        of.shows.len() - 1
    }

    /// A refresh ended; `tokens` are refresh and access token.
    pub(super) fn refreshed(
        &mut self,
        (session, show, gateway): (usize, usize, usize),
        (from, to): (Moment, Moment),
        outcome: &Outcome,
        tokens: Option<(String, String)>,
    ) {
        self.must_answer("a refresh", gateway, from, to, outcome);
        let number = self.sessions[session].shows[show].token;
        let name = format!("token {number} of session {session}");
        match (outcome, tokens) {
            (Outcome::Done, Some((refresh, access))) => {
                self.rotated((session, show, gateway), (from, to), &name, refresh, access);
            }
            (Outcome::Refused(why), _) => {
                self.sessions[session].shows[show].end = Some(to.ms);
                let reused = why == "refresh_reused";
                let excused = self.may_be_over(session, to) || self.user_may_be_banned(session, why);
                let lost = self.sessions[session].perhaps_lost || self.loss(session).is_some();
                if !excused || (why == "refresh_invalid" && !lost) {
                    self.wrong(format!("{name} was refused and is good: {why}"));
                }
                if reused || why == "token_revoked" {
                    self.sessions[session].over.get_or_insert((to, gateway));
                }
            }
            _ => {}
        }
    }

    fn user_may_be_banned(&self, session: usize, why: &str) -> bool {
        why == "member_banned" && !matches!(self.users[self.sessions[session].user].banned, Known::Since(_, _, false))
    }

    fn rotated(
        &mut self,
        (session, show, gateway): (usize, usize, usize),
        (from, to): (Moment, Moment),
        name: &str,
        refresh: String,
        access: String,
    ) {
        let of = &mut self.sessions[session];
        let shown = &mut of.shows[show];
        (shown.end, shown.rotated) = (Some(to.ms), true);
        let number = shown.token;
        let token = &of.tokens[number];
        let mut wrong = Vec::new();
        if let Some((over, _)) = of.over
            && over.order < from.order
        {
            wrong.push(format!("{name} was refreshed on gateway{gateway} after the end of its session"));
        }
        if let Some(next) = token.successor {
            if of.tokens[next].text != refresh {
                wrong.push(format!("{name} has two successors"));
            }
            if of.tokens[next].first_answered.is_some_and(|used| used.order < from.order) {
                wrong.push(format!("{name} was taken again after its successor was used"));
            }
        }
        if token.first_answered.is_some_and(|first| from.ms > first.ms + GRACE + STEP + self.skew) {
            wrong.push(format!("{name} was taken again after the grace"));
        }
        let successor = of.tokens.iter().position(|other| other.text == refresh).unwrap_or_else(|| {
            of.tokens.push(Token { text: refresh, first_shown: None, first_answered: None, successor: None });
            of.tokens.len() - 1
        });
        let token = &mut of.tokens[number];
        token.first_answered.get_or_insert(to);
        token.successor = Some(successor);
        of.access = access;
        if self.loss(session).is_some_and(|loss| loss.order < from.order) {
            wrong.push(format!("{name} was refreshed although the store had lost its session"));
        }
        wrong.into_iter().for_each(|what| self.wrong(what));
    }

    // --- checks ------------------------------------------------------------------------------------------------------

    /// An access token was shown; `roles` are those that were told.
    pub(super) fn checked(
        &mut self,
        (session, gateway): (usize, usize),
        (from, to): (Moment, Moment),
        outcome: &Outcome,
        roles: &str,
    ) {
        self.must_answer("a request", gateway, from, to, outcome);
        let ms = from.ms;
        if let Outcome::Refused(why) = outcome {
            if !self.may_be_over(session, to) {
                self.wrong(format!("a token of session {session} was refused on gateway{gateway} and is good: {why}"));
            }
            return;
        }
        if *outcome != Outcome::Done {
            return;
        }
        if self.troubles.cut_off_for(gateway, ms).is_some_and(|cut| cut > MAX_STALENESS + STEP) {
            self.wrong(format!("gateway{gateway} was cut off for too long and believed a token of session {session}"));
        }
        let of = &self.sessions[session];
        if let Some((over, on)) = of.over
            && over.order < from.order
            && (on == gateway || self.heard(gateway, over.ms, ms))
        {
            self.wrong(format!(
                "a token of session {session} was good on gateway{gateway} after its end on gateway{on} at {}",
                over.ms
            ));
        } else if let Some(loss) = self.loss(session)
            && loss.order < from.order
            && self.heard(gateway, self.troubles.end_of_loss(loss.ms), ms)
        {
            self.wrong(format!("a token of session {session} outlived the store on gateway{gateway}"));
        } else if let Known::Since(since, on, known) = &self.users[of.user].roles
            && since.order < from.order
            && (*on == gateway || self.heard(gateway, since.ms, ms))
            && known != roles
        {
            let what = format!("user {} has roles {known:?}, and gateway{gateway} said {roles:?}", of.user);
            self.wrong(what);
        }
    }

    // --- ends --------------------------------------------------------------------------------------------------------

    /// Somebody asks for the end of one session, of a user's, or of all; returns the number of it.
    pub(super) fn ending(&mut self, user: Option<usize>, session: Option<usize>, begun: Moment) -> usize {
        for (n, of) in self.sessions.iter_mut().enumerate() {
            of.doubtful |= session.map_or_else(|| user.is_none_or(|user| user == of.user), |one| one == n);
        }
        self.endings.push(Ending { user, session, begun, answered: None });
        self.endings.len() - 1
    }

    /// What came of it.
    pub(super) fn ended(&mut self, ending: usize, gateway: usize, at: Moment, outcome: &Outcome) {
        let begun = self.endings[ending].begun;
        self.must_answer("an end", gateway, begun, at, outcome);
        match outcome {
            Outcome::Done => {
                let Ending { user, session, .. } = self.endings[ending];
                self.endings[ending].answered = Some(at);
                for (n, of) in self.sessions.iter_mut().enumerate() {
                    let meant = session.map_or_else(|| user.is_none_or(|user| user == of.user), |one| one == n);
                    if meant && of.opened.order < begun.order {
                        of.over.get_or_insert((at, gateway));
                    }
                }
            }
            // Nothing was done.
            Outcome::Refused(_) => self.endings[ending].answered = Some(begun),
            Outcome::Unknown(_) => {}
        }
    }

    pub(super) fn ban_begins(&mut self, user: usize) {
        self.users[user].banned.doubt();
    }

    pub(super) fn ban_done(&mut self, user: usize, gateway: usize, at: Moment, outcome: &Outcome, banned: bool) {
        self.users[user].banned.settle(outcome, Known::Since(at, gateway, banned));
    }

    pub(super) fn roles_begin(&mut self, user: usize) {
        self.users[user].roles.doubt();
    }

    pub(super) fn roles_done(
        &mut self,
        user: usize,
        gateway: usize,
        (from, at): (Moment, Moment),
        outcome: &Outcome,
        roles: &str,
    ) {
        self.must_answer("a change of roles", gateway, from, at, outcome);
        self.users[user].roles.settle(outcome, Known::Since(at, gateway, roles.to_owned()));
    }
}
