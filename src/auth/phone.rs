//! `POST /auth/phone`: the member's phone number, by a code of the phone button or by the older encrypted form.

use std::sync::Arc;

use axum::extract::State;
use http::Response;
use serde::Deserialize;

use crate::body::Body;
use crate::problem::{Code, Problem};
use crate::wechat::open_data::{OpenDataError, Owner};
use crate::wechat::{self, Meaning, PhoneNumber};

use super::Auth;
use super::answer;
use super::call::Call;
use super::login::checked_code;
use super::session_keys::{self, Asker};
use super::user_data::{UserData, refused};

#[derive(Deserialize)]
struct Request {
    code: Option<String>,
}

/// The handler.
pub async fn phone(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let made = handle(&auth, &call).await;
    call.answer(made)
}

async fn handle(auth: &Arc<Auth>, call: &Call) -> Result<Response<Body>, Problem> {
    let asker = session_keys::asker(auth, call).await?;
    let Request { code } = call.json()?;
    let shown = UserData::of(call)?;
    let number = match (code, shown.is_encrypted()) {
        (Some(code), false) => {
            let code = checked_code(code)?;
            session_keys::renew(auth, &asker, call).await?;
            by_code(auth, &asker, code.expose()).await?
        }
        (None, true) => {
            session_keys::renew(auth, &asker, call).await?;
            by_data(auth, &asker, &shown).await?
        }
        (Some(_), true) | (None, false) => {
            let detail = "Send the `code` of the phone button, or its `encryptedData` and `iv`; one of the two.";
            return Err(Problem::new(Code::InvalidRequest, detail));
        }
    };
    let stored = auth.members.set_phone(&asker.session.member_id, &number.phone_number).await?;
    stored.ok_or_else(Problem::token_revoked)?;
    answer::json(&number)
}

async fn by_code(auth: &Auth, asker: &Asker<'_>, code: &str) -> Result<PhoneNumber, Problem> {
    let Asker { session, app } = asker;
    let call = |token| async move { auth.wechat.phone_number(&app.appid, &token, code, &session.openid).await };
    auth.access_tokens.call(&auth.wechat, app, call).await.map_err(problem)
}

async fn by_data(auth: &Auth, asker: &Asker<'_>, shown: &UserData) -> Result<PhoneNumber, Problem> {
    let session = &asker.session;
    let keys = session_keys::needed(auth, &session.appid, &session.openid).await?;
    let owner = Owner { appid: &session.appid, openid: &session.openid };
    let verified = shown.verify(&keys, &owner, auth.clock.now())?;
    // Data of another kind is no phone number: the same answer, because what was inside is nobody's business.
    verified.data.as_ref().and_then(PhoneNumber::read).ok_or_else(|| refused(OpenDataError::Failed))
}

/// As for any call to WeChat, but for the code: it is that of the phone button.
fn problem(error: wechat::Error) -> Problem {
    match error.meaning() {
        Some(Meaning::BadCode | Meaning::UsedCode) => {
            let detail = "Ask the user to press the phone button again, and send its new code (not that of wx.login).";
            Problem::new(Code::CodeInvalid, detail).caused_by(error)
        }
        _ => error.into(),
    }
}
