//! What a member's phone sends along: user data as the simulator's client calls give it.

use serde_json::{Map, Value, json};
use wxgate::ids::AppId;

use super::gateway::{APPID, Answer, Gateway, Member};

/// The app of every test gateway.
pub(crate) fn app() -> AppId {
    AppId::parse(APPID).unwrap()
}

impl Gateway {
    /// POSTs JSON as a member.
    pub(crate) async fn post_as(&self, member: &Member, path: &str, body: &Value) -> Answer {
        let request = self.client().post(self.url(path)).bearer_auth(member.token()).json(body);
        Answer::of(request.send().await.unwrap()).await
    }

    /// What `wx.getUserProfile` gives `user`: all four members.
    pub(crate) fn user_info(&self, user: &str) -> Value {
        json!(self.wechat.user_info(user, &app()).expect("logged in before"))
    }

    /// What the phone button gives `user`.
    pub(crate) fn phone_button(&self, user: &str) -> Value {
        json!(self.wechat.phone(user, &app()))
    }

    /// `data` with a watermark, encrypted with the current key of `user`.
    pub(crate) fn encrypted(&self, user: &str, data: Value) -> Value {
        let Value::Object(data): Value = data else { panic!("an object") };
        let data: Map<String, Value> = data;
        json!(self.wechat.open_data(user, &app(), data).expect("logged in before"))
    }

    /// The member as `/auth/me` shows it.
    pub(crate) async fn me(&self, member: &Member) -> Value {
        let answer = self.get("/auth/me", Some(member.token())).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["member"].clone()
    }
}
