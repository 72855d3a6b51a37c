//! Tickets: what a page gets in its URL in place of tokens. Good for 60 seconds and one exchange, at any instance.
//!
//! They are remembered as hashes.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{digest, rand};

use crate::ids::{Secret, SessionId};
use crate::problem::Problem;
use crate::store::shared::{Purpose, Shared};

use super::state::hex;

/// Life of a ticket.
pub const LIFE: Duration = Duration::from_secs(60);

/// What a ticket stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::auth) struct Ticket {
    /// The session that was opened.
    pub(in crate::auth) session_id: SessionId,
    /// Whether that was the member's first login.
    pub(in crate::auth) is_new: bool,
}

impl Ticket {
    fn text(&self) -> String {
        format!("{}{}", if self.is_new { '1' } else { '0' }, self.session_id.as_str())
    }

    fn read(text: &[u8]) -> Option<Self> {
        let (is_new, session_id) = std::str::from_utf8(text).ok()?.split_at_checked(1)?;
        Some(Self { session_id: SessionId::parse(session_id).ok()?, is_new: is_new == "1" })
    }
}

/// Those that were given and not exchanged yet.
#[derive(Debug)]
pub(in crate::auth) struct Tickets(Arc<dyn Shared>);

impl Tickets {
    pub(super) fn new(shared: Arc<dyn Shared>) -> Self {
        Self(shared)
    }

    /// A ticket for this session: 64 hexadecimal digits.
    pub(super) async fn give(&self, ticket: &Ticket) -> Result<Secret<String>, Problem> {
        let mut random = [0; 32];
        rand::fill(&mut random).map_err(Problem::internal)?;
        let text = hex(&random);
        self.0.put(Purpose::Ticket, &hash(&text), ticket.text().as_bytes(), LIFE).await?;
        Ok(Secret::new(text))
    }

    /// What this ticket stands for; it is used up.
    pub(in crate::auth) async fn take(&self, text: &str) -> Result<Option<Ticket>, Problem> {
        let found = self.0.take(Purpose::Ticket, &hash(text)).await?;
        Ok(found.and_then(|text| Ticket::read(&text)))
    }
}

fn hash(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::store::shared::Memory;

    #[tokio::test]
    async fn a_ticket_is_good_once_and_for_a_minute() {
        let clock = Clock::manual(Timestamp::from_secs(1000));
        let tickets = Tickets::new(Arc::new(Memory::new(clock.clone())));
        for is_new in [true, false] {
            let ticket = Ticket { session_id: SessionId::parse("s").unwrap(), is_new };
            let one = tickets.give(&ticket).await.unwrap();
            assert_eq!(tickets.take("").await.unwrap(), None);
            assert_eq!(tickets.take(&one.expose().to_uppercase()).await.unwrap(), None);
            clock.advance(LIFE - Duration::from_millis(1));
            assert_eq!(tickets.take(one.expose()).await.unwrap(), Some(ticket.clone()));
            assert_eq!(tickets.take(one.expose()).await.unwrap(), None);
            let late = tickets.give(&ticket).await.unwrap();
            clock.advance(LIFE);
            assert_eq!(tickets.take(late.expose()).await.unwrap(), None);
        }
    }
}
