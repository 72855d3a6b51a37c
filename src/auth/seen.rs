//! Which pushed messages were delivered, and under which nonce: remembered where all instances can see it.

use std::time::Duration;

use crate::store::Error;
use crate::store::shared::{Purpose, Shared};

type Hash = [u8; 32];

/// What is known of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    New,
    /// It was delivered.
    Repeated,
    /// Another message was delivered under its nonce.
    Replayed,
}

pub(super) async fn verdict(shared: &dyn Shared, nonce: &Hash, message: &Hash) -> Result<Verdict, Error> {
    let other = shared.get(Purpose::Push, nonce).await?;
    if let Some(other) = other {
        return Ok(if other == message { Verdict::Repeated } else { Verdict::Replayed });
    }
    let delivered = shared.get(Purpose::Push, message).await?.is_some();
    Ok(if delivered { Verdict::Repeated } else { Verdict::New })
}

/// Each maps to the message: the nonce that it came with, and itself.
pub(super) async fn remember(shared: &dyn Shared, nonce: &Hash, message: &Hash, memory: Duration) -> Result<(), Error> {
    shared.put(Purpose::Push, message, message, memory).await?;
    shared.put(Purpose::Push, nonce, message, memory).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::store::shared::Memory;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_nonce_belongs_to_one_message() {
        let clock = Clock::manual(Timestamp::from_secs(1000));
        let shared = Memory::new(clock.clone());
        let verdict = async |nonce, message| verdict(&shared, &[nonce; 32], &[message; 32]).await.unwrap();
        assert_eq!(verdict(1, 9).await, Verdict::New);
        remember(&shared, &[1; 32], &[9; 32], HOUR).await.unwrap();
        assert_eq!(verdict(1, 9).await, Verdict::Repeated);
        assert_eq!(verdict(2, 9).await, Verdict::Repeated);
        assert_eq!(verdict(1, 8).await, Verdict::Replayed);
        clock.advance(HOUR);
        assert_eq!(verdict(1, 8).await, Verdict::New);
    }
}
