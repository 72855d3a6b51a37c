//! Files that are not whole, not ours, not free, or left behind by a crash.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::folder;
use crate::store::contract::{app, at, key, login, person, refresh, token};
use crate::store::sqlite::{Limits, OpenError, Sqlite};
use crate::store::{Members, Rotation, Sessions, SignIn};

#[tokio::test]
async fn the_disk_as_a_crash_leaves_it_holds_all_that_was_answered() {
    let (folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    let mark = store.birth_mark().to_owned();
    for n in 0..20 {
        store.open(login(&format!("member{n}"), at(0))).await.unwrap();
    }
    store.rotate(token("member0-0"), token("member0-1"), refresh(at(10))).await.unwrap();
    // The files while the store is open are what a killed process leaves behind: nothing was moved or closed.
    let crashed = copy(&path, folder.path(), "crashed", usize::MAX);
    let store = Sqlite::open(&crashed).unwrap();
    assert_eq!(store.birth_mark(), mark);
    for n in 0..20 {
        assert!(store.find_by_refresh(token(&format!("member{n}-0")), at(20)).await.unwrap().is_some(), "{n}");
    }
    let again = store.rotate(token("member0-0"), token("member0-1"), refresh(at(20))).await.unwrap();
    assert!(matches!(again, Rotation::Rotated { .. }));
}

#[tokio::test]
async fn a_log_torn_anywhere_gives_whole_logins_up_to_some_point_and_none_after() {
    let (folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    for n in 0..8 {
        store.open(login(&format!("member{n}"), at(0))).await.unwrap();
    }
    let length = usize::try_from(fs::metadata(with_ending(&path, "-wal")).unwrap().len()).unwrap();
    for part in 0..12 {
        let torn = copy(&path, folder.path(), &format!("torn{part}"), length * part / 12 + 13 * part);
        let store = Sqlite::open(&torn).unwrap();
        let mut survived = Vec::new();
        for n in 0..8 {
            let name = format!("member{n}");
            let session = store.find_by_refresh(token(&format!("{name}-0")), at(1)).await.unwrap();
            let keys = store.session_keys(&app("wx1"), &person(&name)).await.unwrap();
            assert_eq!(session.is_some(), keys == [key(&name, at(0))], "a login is there as a whole or not at all");
            survived.push(session.is_some());
        }
        assert!(survived.is_sorted_by(|a, b| a >= b), "{survived:?}");
    }
}

#[tokio::test]
async fn a_store_that_was_closed_opens_with_all_it_had_and_frees_its_lock() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    let who = SignIn { appid: app("wx1"), openid: person("alice"), unionid: None, at: at(0), merge: false };
    let member = store.sign_in(who).await.unwrap().member;
    drop(store);
    let store = Sqlite::open(&path).unwrap();
    assert_eq!(Members::find(&*store, &member.member_id).await.unwrap(), Some(member));
}

#[tokio::test]
async fn a_store_that_was_closed_is_one_file_without_a_log() {
    let (_folder, path) = folder();
    for n in 0..40 {
        let store = Sqlite::open(&path).unwrap();
        store.open(login(&format!("member{n}"), at(0))).await.unwrap();
        drop(store);
        assert!(!with_ending(&path, "-wal").exists(), "the log was left behind at close {n}");
    }
}

#[test]
fn a_second_gateway_on_the_same_database_is_told_who_has_it() {
    let (folder, path) = folder();
    let _first = Sqlite::open(&path).unwrap();
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for name in [&path, &link] {
        let error = Sqlite::open(name).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    }
}

#[test]
fn database_and_directory_are_made_for_the_owner_only() {
    let (_folder, path) = folder();
    let _store = Sqlite::open(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for ending in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&with_ending(&path, ending)), 0o600, "{ending}");
    }
}

#[test]
fn a_database_that_others_can_read_is_closed_to_them() {
    let (_folder, path) = folder();
    drop(Sqlite::open(&path).unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let _store = Sqlite::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_file_that_is_not_whole_is_refused_and_left_as_it_is() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    for n in 0..50 {
        store.open(login(&format!("member{n}"), at(0))).await.unwrap();
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    let scribbled = {
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4096].fill(0xa5);
        bytes
    };
    let beheaded = [&[0; 16][..], &whole[16..]].concat();
    let cut_in_a_page = whole[..whole.len() - 100].to_vec();
    let cut_in_half = whole[..whole.len() / 8192 * 4096].to_vec();
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("ten bytes", whole[..10].to_vec()),
        ("header only", whole[..100].to_vec()),
        ("cut in a page", cut_in_a_page),
        ("cut in half", cut_in_half),
        ("scribbled", scribbled),
        ("beheaded", beheaded),
        ("text", b"this is not a database, it is a shopping list".to_vec()),
    ] {
        fs::write(&path, &bytes).unwrap();
        let error = Sqlite::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().contains("restore it from a backup"), "{what}: {error}");
        assert!(fs::read(&path).unwrap() == bytes, "{what}: the file was changed");
    }
    fs::write(&path, &whole).unwrap();
    Sqlite::open(&path).unwrap();
}

#[tokio::test]
async fn a_file_too_large_to_be_checked_whole_is_still_refused_when_it_was_cut() {
    let (_folder, path) = folder();
    let limits = Limits { checked_whole: 0, ..Limits::default() };
    let store = Sqlite::open_within(&path, limits).unwrap();
    for n in 0..50 {
        store.open(login(&format!("member{n}"), at(0))).await.unwrap();
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    for kept in [whole.len() - 1, whole.len() - 4096, whole.len() / 2] {
        fs::write(&path, &whole[..kept]).unwrap();
        let error = Sqlite::open_within(&path, limits).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
    fs::write(&path, &whole).unwrap();
    Sqlite::open_within(&path, limits).unwrap();
}

#[test]
fn a_log_without_its_database_is_refused() {
    let (_folder, path) = folder();
    drop(Sqlite::open(&path).unwrap());
    fs::rename(&path, with_ending(&path, "-wal")).unwrap();
    let error = Sqlite::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
}

#[test]
fn a_start_that_was_cut_off_while_making_the_database_does_not_stop_the_next() {
    let (_folder, path) = folder();
    fs::create_dir(path.parent().unwrap()).unwrap();
    for ending in [".new", ".new-wal"] {
        fs::write(with_ending(&path, ending), "half").unwrap();
    }
    Sqlite::open(&path).unwrap();
    assert!(!with_ending(&path, ".new").exists());
}

#[test]
fn a_database_of_another_program_or_a_newer_build_is_refused_untouched() {
    let (_folder, path) = folder();
    fs::create_dir(path.parent().unwrap()).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE shopping (item)").unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(Sqlite::open(&path).unwrap_err(), OpenError::Foreign { .. }));
    assert_eq!(fs::read(&path).unwrap(), before);

    fs::remove_file(&path).unwrap();
    drop(Sqlite::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Sqlite::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
}

/// Copies the database as it lies on the disk, its log cut to `log` bytes.
fn copy(path: &Path, into: &Path, name: &str, log: usize) -> PathBuf {
    let copied = into.join(name);
    fs::copy(path, &copied).unwrap();
    let bytes = fs::read(with_ending(path, "-wal")).unwrap();
    fs::write(with_ending(&copied, "-wal"), &bytes[..log.min(bytes.len())]).unwrap();
    copied
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
