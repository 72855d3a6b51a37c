//! [`Shared`] in Redis: keys that end by themselves.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;

use super::Redis;
use crate::store::Error;
use crate::store::shared::{Charge, News, Purpose, Shared};

#[async_trait]
impl Shared for Redis {
    async fn claim(&self, purpose: Purpose, name: &[u8], value: &[u8], life: Duration) -> Result<bool, Error> {
        let key = self.keys.shared(purpose, name);
        let mut cmd = redis::cmd("SET");
        cmd.arg(&key).arg(value).arg("NX").arg("PX").arg(millis(life));
        let put: Option<String> = self.link.write(&key, &cmd).await?;
        Ok(put.is_some())
    }

    async fn put(&self, purpose: Purpose, name: &[u8], value: &[u8], life: Duration) -> Result<(), Error> {
        let key = self.keys.shared(purpose, name);
        let mut cmd = redis::cmd("SET");
        cmd.arg(&key).arg(value).arg("PX").arg(millis(life));
        self.link.write(&key, &cmd).await
    }

    async fn get(&self, purpose: Purpose, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.link.read(redis::cmd("GET").arg(self.keys.shared(purpose, name))).await
    }

    async fn take(&self, purpose: Purpose, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let key = self.keys.shared(purpose, name);
        self.link.write(&key, redis::cmd("GETDEL").arg(&key)).await
    }

    async fn release(&self, purpose: Purpose, name: &[u8], value: &[u8]) -> Result<(), Error> {
        let key = self.keys.shared(purpose, name);
        let mut script = self.scripts.release.key(&key);
        script.arg(value);
        let _: u32 = self.link.run(&key, &script).await?;
        Ok(())
    }

    async fn news(&self, position: Option<&str>) -> Result<Option<News>, Error> {
        self.since(position).await.map(Some)
    }

    async fn charge(&self, charges: &[Charge]) -> Result<Option<Vec<Duration>>, Error> {
        let aheads = try_join_all(charges.iter().map(|charge| async move {
            let mut script = self.scripts.charge.key(self.keys.limit(&charge.name));
            // Rounded up, so that nobody gets more than was asked for.
            script.arg(micros(charge.cost)).arg(micros(charge.reach));
            self.link.run_once(&script).await.map(Duration::from_micros)
        }));
        aheads.await.map(Some)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX).min(1 << 51)
}

fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX >> 12).max(1)
}
