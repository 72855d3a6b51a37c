//! Sealing anew: who has keys is found, and a record is replaced only while it is there.

use std::collections::HashSet;
use std::sync::Arc;

use super::{app, at, key, login, person};
use crate::ids::{AppId, OpenId};
use crate::store::Sessions;

type Store = Arc<dyn Sessions>;

/// Everybody, found with pages of this size.
async fn walk(store: &Store, limit: u32) -> HashSet<(AppId, OpenId)> {
    let (mut found, mut from) = (HashSet::new(), None);
    loop {
        let page = store.people_with_keys(from.as_deref(), limit).await.unwrap();
        found.extend(page.people);
        match page.next {
            Some(next) => from = Some(next),
            None => return found,
        }
    }
}

pub(in crate::store) async fn everybody_who_has_keys_is_found_page_by_page(store: Store) {
    assert!(walk(&store, 10).await.is_empty());
    store.open(login("alice", at(0))).await.unwrap();
    let mut everybody = HashSet::from([(app("wx1"), person("alice"))]);
    for n in 0..50 {
        let (appid, openid) = (app(&format!("wx{}", n % 3)), person(&format!("p{n}")));
        store.keep_key(&appid, &openid, key("k", at(n))).await.unwrap();
        everybody.insert((appid, openid));
    }
    for limit in [1, 7, 1000] {
        assert_eq!(walk(&store, limit).await, everybody, "{limit}");
    }
    let (gone, left) = (app("wx0"), person("p0"));
    store.erase_keys(&gone, &left).await.unwrap();
    everybody.remove(&(gone, left));
    assert_eq!(walk(&store, 7).await, everybody);
}

pub(in crate::store) async fn a_key_that_was_sealed_anew_takes_the_place_of_the_old_record(store: Store) {
    let (wx1, alice) = (app("wx1"), person("alice"));
    store.keep_key(&wx1, &alice, key("old-1", at(10))).await.unwrap();
    store.keep_key(&wx1, &alice, key("old-2", at(20))).await.unwrap();
    let now = async || store.session_keys(&wx1, &alice).await.unwrap();
    assert!(store.reseal_key(&wx1, &alice, b"old-1", b"new-1".to_vec()).await.unwrap());
    assert_eq!(now().await, [key("old-2", at(20)), key("new-1", at(10))]);
    assert!(store.reseal_key(&wx1, &alice, b"old-2", b"new-2".to_vec()).await.unwrap());
    assert_eq!(now().await, [key("new-2", at(20)), key("new-1", at(10))]);
    // As WeChat returned the same key again: it is still known.
    store.keep_key(&wx1, &alice, key("new-2", at(30))).await.unwrap();
    assert_eq!(now().await, [key("new-2", at(30)), key("new-1", at(10))]);
}

pub(in crate::store) async fn a_record_that_is_gone_is_not_brought_back(store: Store) {
    let (wx1, alice) = (app("wx1"), person("alice"));
    assert!(!store.reseal_key(&wx1, &alice, b"old", b"new".to_vec()).await.unwrap());
    assert_eq!(store.session_keys(&wx1, &alice).await.unwrap(), []);
    store.keep_key(&wx1, &alice, key("other", at(10))).await.unwrap();
    assert!(!store.reseal_key(&wx1, &alice, b"old", b"new".to_vec()).await.unwrap());
    assert_eq!(store.session_keys(&wx1, &alice).await.unwrap(), [key("other", at(10))]);
}
