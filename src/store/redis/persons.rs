//! What is kept of a person beside their sessions: sealed session_keys, and of an app: its sealed access token.

use super::Redis;
use super::keys::{digits, time};
use crate::ids::{AppId, OpenId};
use crate::store::{Error, SealedKey, SealedToken};

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

    pub(super) async fn forget(&self, appid: &AppId, openid: &OpenId) -> Result<(), Error> {
        let name = self.keys.session_keys(appid, openid);
        let _: u32 = self.link.write(&name, redis::cmd("DEL").arg(&name)).await?;
        Ok(())
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
