//! The sealed keys of the deployment: one record, replaced by whoever knows the one before.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::store::Sessions;

type Store = Arc<dyn Sessions>;

/// Any bytes: a store does not know what is in it.
const FIRST: &[u8] = b"first\0\xff\r\n";

pub(in crate::store) async fn the_sealed_keys_are_replaced_by_who_knows_those_before(store: Store) {
    assert_eq!(store.key_bundle().await.unwrap(), None);
    assert!(!store.replace_key_bundle(Some(b"another"), FIRST).await.unwrap());
    assert_eq!(store.key_bundle().await.unwrap(), None, "what is not there is not replaced");
    assert!(store.replace_key_bundle(None, FIRST).await.unwrap());
    assert_eq!(store.key_bundle().await.unwrap().as_deref(), Some(FIRST));
    for from in [None, Some(&b"another"[..]), Some(b"first")] {
        assert!(!store.replace_key_bundle(from, b"never").await.unwrap());
    }
    assert_eq!(store.key_bundle().await.unwrap().as_deref(), Some(FIRST));
    assert!(store.replace_key_bundle(Some(FIRST), b"second").await.unwrap());
    assert!(!store.replace_key_bundle(Some(FIRST), b"never").await.unwrap(), "the same once more");
    assert_eq!(store.key_bundle().await.unwrap().as_deref(), Some(&b"second"[..]));
}

pub(in crate::store) async fn of_twenty_who_replace_the_sealed_keys_at_once_one_does(store: Store) {
    let mut known: Option<Vec<u8>> = None;
    for round in 0..5 {
        let tries = join_all((0..20).map(|n| {
            let (store, known) = (Arc::clone(&store), known.clone());
            async move {
                let own = format!("{round} of {n}").into_bytes();
                store.replace_key_bundle(known.as_deref(), &own).await.unwrap().then_some(own)
            }
        }));
        let done: Vec<Vec<u8>> = tries.await.into_iter().flatten().collect();
        assert_eq!(done.len(), 1, "round {round}");
        known = done.into_iter().next();
        assert_eq!(store.key_bundle().await.unwrap(), known);
    }
}
