//! Specifications of [`Shared`].

use std::sync::Arc;
use std::time::Duration;

use crate::store::shared::{Charge, Purpose, Shared};

type Store = Arc<dyn Shared>;

const LIFE: Duration = Duration::from_secs(60);

pub(in crate::store) async fn of_thirty_claims_at_once_one_is_granted(store: Store) {
    let claims: Vec<_> = (0..30_u8)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.claim(Purpose::Code, b"name", &[n], LIFE).await.unwrap() })
        })
        .collect();
    let mut granted = 0;
    for claim in claims {
        granted += u32::from(claim.await.unwrap());
    }
    assert_eq!(granted, 1);
    assert!(store.claim(Purpose::Code, b"other name", b"", LIFE).await.unwrap());
    assert!(store.claim(Purpose::State, b"name", b"", LIFE).await.unwrap(), "another purpose, another name");
}

pub(in crate::store) async fn a_claim_is_released_by_its_owner_alone(store: Store) {
    assert!(store.claim(Purpose::Code, b"name", b"mine", LIFE).await.unwrap());
    store.release(Purpose::Code, b"name", b"somebody else's").await.unwrap();
    assert!(!store.claim(Purpose::Code, b"name", b"mine", LIFE).await.unwrap());
    store.release(Purpose::Code, b"name", b"mine").await.unwrap();
    assert!(store.claim(Purpose::Code, b"name", b"mine", LIFE).await.unwrap());
}

pub(in crate::store) async fn a_value_is_taken_once(store: Store) {
    store.put(Purpose::Ticket, b"name", b"first", LIFE).await.unwrap();
    store.put(Purpose::Ticket, b"name", b"\0second\xff", LIFE).await.unwrap();
    assert_eq!(store.get(Purpose::Ticket, b"name").await.unwrap().as_deref(), Some(&b"\0second\xff"[..]));
    let takes: Vec<_> = (0..10)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.take(Purpose::Ticket, b"name").await.unwrap() })
        })
        .collect();
    let mut taken = Vec::new();
    for take in takes {
        taken.extend(take.await.unwrap());
    }
    assert_eq!(taken, [b"\0second\xff"]);
    assert_eq!(store.get(Purpose::Ticket, b"name").await.unwrap(), None);
}

pub(in crate::store) async fn what_is_charged_adds_up(store: Store) {
    let second = Duration::from_secs(1);
    let charge = |name, cost: u32, reach: u32| Charge { name: [name; 16], cost: cost * second, reach: reach * second };
    let one = [charge(1, 100, 1000)];
    // Who is alone has nobody to add up with.
    let Some(first) = store.charge(&one).await.unwrap() else { return };
    assert_eq!(first, [100 * second]);
    let both = store.charge(&[charge(1, 100, 1000), charge(2, 7, 1000)]).await.unwrap().unwrap();
    let ran = 200 * second - both[0];
    assert!(ran < 60 * second, "the clock took away {ran:?}");
    assert_eq!(both[1], 7 * second, "another name, another bucket");
    let forgiven = store.charge(&[charge(1, 1, 5)]).await.unwrap().unwrap();
    assert_eq!(forgiven, [6 * second], "of what lies too far ahead");
    assert!(store.charge(&[]).await.unwrap().unwrap().is_empty());
}
