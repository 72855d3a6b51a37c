//! What an operator does to a running gateway: edits its file, reads its metrics.

use std::fs;

use super::gateway::Gateway;

impl Gateway {
    /// Changes `gateway.toml` and reloads it, which must succeed.
    pub(crate) async fn rewrite(&self, change: impl FnOnce(String) -> String) {
        let path = self.dir.path().join("gateway.toml");
        let before = fs::read_to_string(&path).unwrap();
        let after = change(before.clone());
        assert_ne!(before, after, "nothing was changed");
        fs::write(&path, after).unwrap();
        self.inner().reload().await.unwrap();
    }

    /// Forgets what has expired, as the gateway does once a minute.
    pub(crate) async fn sweep(&self) {
        let kept = self.inner().kept();
        wxgate::auth::ending::sweep(&*kept.sessions, &kept.revocations, self.clock.now()).await.unwrap();
    }

    /// The metrics page.
    pub(crate) async fn metrics(&self) -> String {
        self.client().get(self.admin_url("/metrics")).send().await.unwrap().text().await.unwrap()
    }

    /// The value of one line of it, by its name with labels; 0 when there is none.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let page = self.metrics().await;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or(0.)
    }

    /// Waits until that value is `wanted`.
    pub(crate) async fn until_metric_is(&self, name: &str, wanted: f64) {
        let wait = async {
            while self.metric(name).await != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(super::DEADLINE, wait).await.unwrap_or_else(|_| panic!("{name} was never {wanted}"));
    }
}
