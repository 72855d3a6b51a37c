//! What is kept sealed: session_keys of a person, the access token of an app, the keys of the deployment.

use futures_util::future::try_join_all;

use super::Redis;
use super::keys::{SLOTS, digits, time};
use crate::ids::{AppId, OpenId};
use crate::store::{Error, KeysPage, SealedKey, SealedToken};

/// Slots of a cluster that are asked for together.
const SLOTS_AT_ONCE: u16 = 64;

const DAMAGED: Error = Error::Damaged("a sealed key in Redis holds what is never written there");

impl Redis {
    pub(super) async fn keep(&self, appid: &AppId, openid: &OpenId, key: &SealedKey) -> Result<(), Error> {
        let name = self.keys.session_keys(appid, openid);
        let mut script = self.scripts.keep_key.key(&name);
        script.arg(&key.sealed[..]).arg(digits(key.exchanged_at));
        let _: u32 = self.link.run(&name, &script).await?;
        Ok(())
    }

    pub(super) async fn kept(&self, appid: &AppId, openid: &OpenId) -> Result<Vec<SealedKey>, Error> {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(self.keys.session_keys(appid, openid)).arg("n").arg("na").arg("p").arg("pa");
        let fields: [Option<Vec<u8>>; 4] = self.link.read(&cmd).await?;
        let [newest, newest_at, previous, previous_at] = fields;
        let pairs = [newest.zip(newest_at), previous.zip(previous_at)].into_iter().flatten();
        let keys = pairs.map(|(sealed, at)| {
            let exchanged_at = std::str::from_utf8(&at).ok().and_then(time).ok_or(DAMAGED)?;
            Ok(SealedKey { sealed, exchanged_at })
        });
        keys.collect()
    }

    /// One server is gone through with SCAN, a cluster slot by slot. Of a slot that is just moving to another node, what has
    /// moved already is missed: those people log in once more when the old key is gone.
    pub(super) async fn people(&self, from: Option<&str>, limit: u32) -> Result<KeysPage, Error> {
        let place: u64 = from.map_or(Ok(0), str::parse).map_err(|_| DAMAGED)?;
        let mut page = KeysPage::default();
        if self.link.is_cluster() {
            let mut slot = u16::try_from(place).map_err(|_| DAMAGED)?;
            while slot < SLOTS && page.people.len() < limit as usize {
                let end = SLOTS.min(slot + SLOTS_AT_ONCE);
                let keys = try_join_all((slot..end).map(|slot| self.link.keys_in_slot(slot))).await?;
                page.people.extend(keys.iter().flatten().filter_map(|key| self.keys.person(key)));
                slot = end;
            }
            page.next = (slot < SLOTS).then(|| slot.to_string());
            return Ok(page);
        }
        let mut scan = redis::cmd("SCAN");
        // Sessions and refresh tokens lie between them, several for each person.
        scan.arg(place).arg("MATCH").arg(format!("{}*", self.keys.all_session_keys())).arg("COUNT").arg(10 * limit);
        let (next, keys): (u64, Vec<String>) = self.link.read(&scan).await?;
        page.people.extend(keys.iter().filter_map(|key| self.keys.person(key)));
        // 0 is Redis's end of a walk.
        page.next = (next != 0).then(|| next.to_string());
        Ok(page)
    }

    pub(super) async fn reseal(&self, appid: &AppId, openid: &OpenId, from: &[u8], to: &[u8]) -> Result<bool, Error> {
        let name = self.keys.session_keys(appid, openid);
        let mut script = self.scripts.reseal.key(&name);
        script.arg(from).arg(to);
        self.link.run(&name, &script).await
    }

    pub(super) async fn forget(&self, appid: &AppId, openid: &OpenId) -> Result<(), Error> {
        let name = self.keys.session_keys(appid, openid);
        let _: u32 = self.link.write(&name, redis::cmd("DEL").arg(&name)).await?;
        Ok(())
    }

    pub(super) async fn bundle(&self) -> Result<Option<Vec<u8>>, Error> {
        self.link.read(redis::cmd("GET").arg(self.keys.key_bundle())).await
    }

    pub(super) async fn replace_bundle(&self, from: Option<&[u8]>, to: &[u8]) -> Result<bool, Error> {
        let name = self.keys.key_bundle();
        let mut script = self.scripts.replace.key(&name);
        script.arg(from.unwrap_or_default()).arg(to);
        self.link.run(&name, &script).await
    }

    pub(super) async fn put_access_token(&self, appid: &AppId, line: &str, token: &SealedToken) -> Result<(), Error> {
        let name = self.keys.access_token(appid, line);
        let mut cmd = redis::cmd("HSET");
        cmd.arg(&name).arg("sealed").arg(&token.sealed[..]).arg("expires").arg(digits(token.expires_at));
        let _: u32 = self.link.write(&name, &cmd).await?;
        Ok(())
    }

    pub(super) async fn get_access_token(&self, appid: &AppId, line: &str) -> Result<Option<SealedToken>, Error> {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(self.keys.access_token(appid, line)).arg("sealed").arg("expires");
        let (sealed, expires): (Option<Vec<u8>>, Option<String>) = self.link.read(&cmd).await?;
        let Some((sealed, expires)) = sealed.zip(expires) else { return Ok(None) };
        Ok(Some(SealedToken { sealed, expires_at: time(&expires).ok_or(DAMAGED)? }))
    }
}
