use super::keys::{KEEP, KEY_ID_LEN, LEAD, State};
use super::*;
use crate::keyfile;

fn app(id: &str) -> AppId {
    AppId::parse(id).unwrap()
}

fn person(id: &str) -> OpenId {
    OpenId::parse(id).unwrap()
}

/// As the gateway does it.
fn tend(vault: &Vault, every: Option<Duration>) -> Option<keys::Rotated> {
    let rotated = every.and_then(|every| keys::rotate_if_of_age(&vault.shelf, every, vault.clock.now()).unwrap());
    vault.reread().unwrap();
    rotated
}

fn rotate(vault: &Vault, at_once: bool) -> keys::Rotated {
    let rotated = keys::rotate(&vault.shelf, at_once, vault.clock.now()).unwrap();
    vault.reread().unwrap();
    rotated
}

fn drop_old(vault: &Vault) -> usize {
    let dropped = keys::drop_old(&vault.shelf, vault.clock.now()).unwrap();
    vault.reread().unwrap();
    dropped
}

#[test]
fn what_is_sealed_opens_for_the_same_person_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let sealed = Vault::open(&keys, &Clock::system()).unwrap().seal(b"session key 16 B", &app("wx1"), &person("alice"));
    let opened = Vault::open(&keys, &Clock::system()).unwrap().unseal(&sealed, &app("wx1"), &person("alice")).unwrap();
    assert_eq!(opened.as_slice(), b"session key 16 B");
    assert!(!sealed.windows(7).any(|w| w == b"session"));
}

#[test]
fn a_record_that_was_moved_to_another_person_fails_closed() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::open(dir.path(), &Clock::system()).unwrap();
    let sealed = vault.seal(b"k", &app("wx1"), &person("alice"));
    // The last two have the same bytes once they are put together: lengths tell them apart.
    for (appid, openid) in [("wx1", "bob"), ("wx2", "alice"), ("wx1a", "lice"), ("wx", "1alice")] {
        let result = vault.unseal(&sealed, &app(appid), &person(openid));
        assert!(matches!(result, Err(Error::Sealed)), "{appid} {openid}");
    }
}

#[test]
fn an_access_token_opens_for_its_app_line_and_end_alone() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::open(dir.path(), &Clock::system()).unwrap();
    let (app, end) = (app("wx1"), Timestamp::from_secs(7200));
    let sealed = vault.seal_access_token("token", &app, "stable", end);
    assert_eq!(vault.unseal_access_token(&sealed, &app, "stable", end).unwrap().as_slice(), b"token");
    let other = AppId::parse("wx2").unwrap();
    for moved in [
        vault.unseal_access_token(&sealed, &other, "stable", end),
        vault.unseal_access_token(&sealed, &app, "classic", end),
        vault.unseal_access_token(&sealed, &app, "stable", Timestamp::from_secs(7201)),
        vault.unseal(&sealed, &app, &person("stable")),
    ] {
        assert!(matches!(moved, Err(Error::Sealed)));
    }
}

#[test]
fn a_record_with_any_bit_changed_or_any_length_cut_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::open(dir.path(), &Clock::system()).unwrap();
    let (appid, alice) = (app("wx1"), person("alice"));
    let sealed = vault.seal(b"session key 16 B", &appid, &alice);
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(vault.unseal(&changed, &appid, &alice).is_err(), "byte {at}");
        assert!(vault.unseal(&sealed[..at], &appid, &alice).is_err(), "cut at {at}");
    }
}

#[test]
fn equal_keys_of_one_person_seal_equally_and_all_else_differs() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::open(dir.path(), &Clock::system()).unwrap();
    let sealed = vault.seal(b"k1", &app("wx1"), &person("alice"));
    assert_eq!(vault.seal(b"k1", &app("wx1"), &person("alice")), sealed);
    for other in [
        vault.seal(b"k2", &app("wx1"), &person("alice")),
        vault.seal(b"k1", &app("wx2"), &person("alice")),
        vault.seal(b"k1", &app("wx1"), &person("bob")),
    ] {
        let nonce = KEY_ID_LEN..KEY_ID_LEN + NONCE_LEN;
        assert_ne!(other[nonce.clone()], sealed[nonce]);
    }
}

#[test]
fn a_new_key_on_top_seals_and_the_old_one_below_still_opens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let (appid, alice) = (app("wx1"), person("alice"));
    let old = Vault::open(dir.path(), &Clock::system()).unwrap().seal(b"k", &appid, &alice);
    let line = std::fs::read_to_string(&path).unwrap();
    keyfile::write(&path, format!("{}\n{line}", "ab".repeat(32)).as_bytes()).unwrap();

    let vault = Vault::open(dir.path(), &Clock::system()).unwrap();
    assert_eq!(vault.unseal(&old, &appid, &alice).unwrap().as_slice(), b"k");
    let new = vault.seal(b"k", &appid, &alice);
    assert_ne!(new[..KEY_ID_LEN], old[..KEY_ID_LEN]);

    keyfile::write(&path, line.as_bytes()).unwrap();
    let result = Vault::open(dir.path(), &Clock::system()).unwrap().unseal(&new, &appid, &alice);
    assert!(matches!(result, Err(Error::UnknownKey)));
}

#[test]
fn a_key_file_that_holds_no_keys_is_refused_by_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let good = "0f".repeat(32);
    let short_second = format!("{good}\nabcd\n");
    for (content, line) in [
        ("", 1),
        ("ab", 1),
        (&"zz".repeat(32), 1),
        (&"a".repeat(63), 1),
        (&short_second, 2),
        (&format!("{good} x"), 1),
        (&format!("{good} 1 2 3"), 1),
    ] {
        keyfile::write(&path, content.as_bytes()).unwrap();
        let error = Vault::open(dir.path(), &Clock::system()).unwrap_err();
        assert!(matches!(&error, Error::NotAKey { line: at, .. } if *at == line), "{error}");
        assert!(!error.to_string().contains(&good));
    }
}

#[test]
fn a_vault_shows_no_key() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(format!("{:?}", Vault::open(dir.path(), &Clock::system()).unwrap()), "Vault(1 keys)");
}

const NOW: Timestamp = Timestamp::from_secs(1_763_700_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The states of all keys, the newest first.
fn states(vault: &Vault) -> Vec<State> {
    vault.list().iter().map(|key| key.state).collect()
}

fn id_of(sealed: &[u8]) -> String {
    keys::name(sealed.first_chunk().unwrap())
}

#[test]
fn a_new_key_lies_there_before_it_seals_and_every_instance_knows_it_by_then() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let (a, b) = (Vault::open(dir.path(), &clock).unwrap(), Vault::open(dir.path(), &clock).unwrap());
    let (appid, alice) = (app("wx1"), person("alice"));
    let first = a.seal(b"k", &appid, &alice);
    let rotated = rotate(&a, false);
    assert_eq!(rotated.seals_from, NOW.plus(LEAD));
    assert_eq!(rotate(&a, false), rotated, "there is one that waits");
    assert_eq!(states(&a), [State::Next, State::Active]);
    assert_eq!(a.seal(b"k", &appid, &alice), first);
    tend(&b, None);
    clock.advance(LEAD);
    for vault in [&a, &b] {
        assert_eq!(states(vault), [State::Active, State::Old]);
        let second = vault.seal(b"k", &appid, &alice);
        assert_eq!(id_of(&second), keys::name(&rotated.id));
        assert_eq!(vault.unseal(&first, &appid, &alice).unwrap().as_slice(), b"k");
        assert_eq!(vault.reseal(&first, &appid, &alice).unwrap(), Some(second.clone()));
        assert_eq!(vault.reseal(&second, &appid, &alice).unwrap(), None);
        assert!(vault.reseal(&first, &appid, &person("bob")).is_err());
    }
    clock.set_back(LEAD);
    assert_eq!(states(&a), [State::Next, State::Active], "a clock that was wrong seals by the older one again");
}

#[test]
fn a_key_that_seals_at_once_is_read_by_the_others_when_they_meet_it() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let (a, b) = (Vault::open(dir.path(), &clock).unwrap(), Vault::open(dir.path(), &clock).unwrap());
    let (appid, alice) = (app("wx1"), person("alice"));
    rotate(&a, true);
    let sealed = a.seal(b"k", &appid, &alice);
    assert_eq!(b.unseal(&sealed, &appid, &alice).unwrap().as_slice(), b"k");
    assert_eq!(b.seal(b"k", &appid, &alice), sealed);
    // A record that names no key at all has the file read once a second at most.
    keyfile::write(&dir.path().join(FILE), b"damaged").unwrap();
    let unknown = [&[0; KEY_ID_LEN][..], &sealed[KEY_ID_LEN..]].concat();
    assert!(matches!(b.unseal(&unknown, &appid, &alice), Err(Error::UnknownKey)));
    clock.advance(LOOK);
    assert!(matches!(b.unseal(&unknown, &appid, &alice), Err(Error::NotAKey { line: 1, .. })));
    assert_eq!(b.unseal(&sealed, &appid, &alice).unwrap().as_slice(), b"k", "the keys stay as they are");
}

#[test]
fn keys_rotate_by_age_and_old_ones_are_kept_for_a_month_at_least() {
    let dir = tempfile::tempdir().unwrap();
    keyfile::write(&dir.path().join(FILE), format!("{} {} {}\n", "0f".repeat(32), NOW.secs(), NOW.secs()).as_bytes())
        .unwrap();
    let clock = Clock::manual(NOW);
    let vault = Vault::open(dir.path(), &clock).unwrap();
    let sealed = vault.seal(b"k", &app("wx1"), &person("alice"));
    let every = Some(90 * DAY);
    clock.advance(90 * DAY - LEAD - Duration::from_secs(1));
    assert_eq!(tend(&vault, every), None);
    assert_eq!(tend(&vault, None), None);
    clock.advance(Duration::from_secs(1));
    assert_eq!(tend(&vault, every).map(|rotated| rotated.seals_from), Some(NOW.plus(90 * DAY)));
    assert_eq!(tend(&vault, every), None);
    clock.advance(LEAD);
    assert_eq!((states(&vault), vault.settled()), (vec![State::Active, State::Old], None));
    clock.advance(Duration::from_secs(3600));
    let settled = vault.settled().expect("by now nobody seals by the older one");
    assert!(vault.has_old());
    vault.note_resealed(settled);
    assert!(!vault.has_old(), "nothing of it is left in the store");
    clock.advance(KEEP - Duration::from_secs(3601));
    assert_eq!(drop_old(&vault), 0);
    clock.advance(Duration::from_secs(1));
    assert_eq!(drop_old(&vault), 1);
    assert_eq!((states(&vault), vault.settled(), vault.has_old()), (vec![State::Active], None, false));
    assert!(matches!(vault.unseal(&sealed, &app("wx1"), &person("alice")), Err(Error::UnknownKey)));
    assert_eq!(Vault::open(dir.path(), &clock).unwrap().list(), vault.list());
}

#[test]
fn a_key_whose_successor_has_not_sealed_for_long_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let vault = Vault::open(dir.path(), &clock).unwrap();
    for _ in 0..3 {
        rotate(&vault, true);
        clock.advance(20 * DAY);
    }
    assert_eq!(drop_old(&vault), 2, "those that were replaced 60 and 40 days ago");
    assert_eq!(states(&vault), [State::Active, State::Old]);
}

#[test]
fn of_twenty_who_rotate_at_once_one_makes_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    Vault::open(dir.path(), &clock).unwrap();
    let made: std::collections::HashSet<_> = std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..20).map(|_| scope.spawn(|| rotate(&Vault::open(dir.path(), &clock).unwrap(), false).id)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(made.len(), 1);
    assert_eq!(Vault::open(dir.path(), &clock).unwrap().list().len(), 2);
}
