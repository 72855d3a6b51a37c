//! What an operator asks of the admin listener.

use http::Method;
use serde_json::{Value, json};

use super::gateway::{Answer, Gateway, Member};

impl Gateway {
    /// The admin token.
    pub(crate) fn admin_token(&self) -> String {
        let config = &self.inner().current().config;
        wxgate::cli::operator::admin_token(config).unwrap().expose().to_owned()
    }

    /// A call with it.
    pub(crate) async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.client().request(method, self.admin_url(path)).bearer_auth(self.admin_token());
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::of(request.send().await.unwrap()).await
    }

    /// What the admin listener shows under this path.
    pub(crate) async fn shown(&self, path: &str) -> Value {
        let answer = self.admin(Method::GET, path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// Changes a member, which must succeed.
    pub(crate) async fn change(&self, member: &Member, change: Value) -> Value {
        let answer = self.admin(Method::PUT, &format!("/api/members/{}", member.id()), Some(change)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// Ends sessions; returns how many.
    pub(crate) async fn revoke(&self, of: Value) -> Value {
        let answer = self.admin(Method::POST, "/api/sessions/revoke", Some(of)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["ended"].clone()
    }

    /// The lines of the audit log.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("audit.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A refresh with this token.
    pub(crate) async fn refresh(&self, member: &Member) -> Answer {
        self.post("/auth/refresh", &json!({ "refresh_token": member.refresh() })).await
    }
}
