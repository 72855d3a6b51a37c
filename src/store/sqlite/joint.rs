//! [`Joint`]: members and sessions are in one file here.

use async_trait::async_trait;

use super::{Sqlite, member_row, rotation, sessions, sign_in};
use crate::store::joint::{Grant, Joint, Opened};
use crate::store::{Error, Member, RefreshHash, RefreshUse, Rotation, SignIn, SignedIn};

#[async_trait]
impl Joint for Sqlite {
    async fn log_in(&self, who: SignIn, mut grant: Grant) -> Result<(SignedIn, Option<Opened>), Error> {
        self.write(move |db| {
            let signed_in = sign_in::sign_in(db, &who)?;
            let opened = match grant(&signed_in) {
                Some(new) => Some(Opened { ended: sessions::open(db, &new)?, new }),
                None => None,
            };
            Ok((signed_in, opened))
        })
        .await
    }

    async fn refresh(
        &self,
        shown: RefreshHash,
        successor: RefreshHash,
        use_: RefreshUse,
    ) -> Result<(Rotation, Option<Member>), Error> {
        self.write(move |db| {
            let rotation = rotation::rotate(db, shown, successor, use_)?;
            let member = match &rotation {
                Rotation::Rotated { session, .. } => member_row::find(db, &session.member_id)?,
                _ => None,
            };
            Ok((rotation, member))
        })
        .await
    }
}
