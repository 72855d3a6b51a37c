use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;

fn clock() -> Clock {
    Clock::manual(Timestamp::from_secs(1_700_000_000))
}

/// The error with its sources, as an operator sees it.
fn refusal(dir: &Path) -> String {
    format!("{:#}", anyhow::Error::from(KeyRing::open(dir, Algorithm::Es256, &clock()).unwrap_err()))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| !n.starts_with('.'))
        .collect();
    names.sort();
    names
}

fn active(ring: &KeyRing, algorithm: Algorithm) -> String {
    ring.signing_key(algorithm).unwrap().kid().to_owned()
}

#[test]
fn the_first_start_makes_an_owner_only_directory_and_one_key() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("data/keys");
    let ring = KeyRing::open(&dir, Algorithm::Es256, &clock()).unwrap();
    let kid = active(&ring, Algorithm::Es256);
    assert_eq!(names(&dir), [format!("ES256-{kid}.pem"), "ring.json".into()]);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    for name in names(&dir) {
        assert_eq!(fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let again = KeyRing::open(&dir, Algorithm::Es256, &clock()).unwrap();
    assert_eq!(active(&again, Algorithm::Es256), kid);
    assert_eq!(again.entries()[0].created_at, Timestamp::from_secs(1_700_000_000));
}

#[test]
fn processes_that_start_at_once_agree_on_one_key() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("keys");
    let kids: Vec<String> = std::thread::scope(|scope| {
        let start = || active(&KeyRing::open(&dir, Algorithm::EdDsa, &clock()).unwrap(), Algorithm::EdDsa);
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(kids.iter().all(|k| *k == kids[0]), "{kids:?}");
    assert_eq!(names(&dir).len(), 2);
}

#[test]
fn another_algorithm_gets_its_own_key_and_the_old_one_verifies_on() {
    let home = tempfile::tempdir().unwrap();
    let es = active(&KeyRing::open(home.path(), Algorithm::Es256, &clock()).unwrap(), Algorithm::Es256);
    let ring = KeyRing::open(home.path(), Algorithm::Hs256, &clock()).unwrap();
    assert_eq!(ring.entries().len(), 2);
    assert_eq!(ring.verifying_key(&es).unwrap().algorithm(), Algorithm::Es256);
    let hs = ring.entries().iter().find(|e| e.key.algorithm() == Algorithm::Hs256).unwrap();
    assert_eq!(hs.state, State::Next);
    assert_eq!(ring.signer(Algorithm::Hs256, false).unwrap().kid(), es);
    assert!(ring.signing_key(Algorithm::Rs256).is_none());
    assert!(ring.verifying_key("../../etc/passwd").is_none());
}

#[test]
fn an_imported_key_becomes_active_and_the_former_one_retires() {
    let home = tempfile::tempdir().unwrap();
    let clock = clock();
    let former = active(&KeyRing::open(home.path(), Algorithm::Es256, &clock).unwrap(), Algorithm::Es256);
    clock.advance(Duration::from_secs(60));

    let pem = Key::generate(Algorithm::Es256).unwrap();
    let imported = import_pem(home.path(), &pem, &clock).unwrap();
    assert_eq!(imported.replaced.as_deref(), Some(&*former));

    let ring = KeyRing::open(home.path(), Algorithm::Es256, &clock).unwrap();
    assert_eq!(active(&ring, Algorithm::Es256), imported.kid);
    let old = ring.entries().iter().find(|e| e.key.kid() == former).unwrap();
    assert_eq!((old.state, old.since), (State::Retiring, Timestamp::from_secs(1_700_000_060)));

    let again = import_pem(home.path(), &pem, &clock).unwrap();
    assert_eq!(again, Imported { replaced: None, ..imported });
    let back = fs::read(home.path().join(format!("ES256-{former}.pem"))).unwrap();
    assert_eq!(import_pem(home.path(), &back, &clock).unwrap().kid, former, "a retiring key may come back");
    assert_eq!(KeyRing::open(home.path(), Algorithm::Es256, &clock).unwrap().entries().len(), 2);
}

#[test]
fn an_import_needs_no_ring_before_it_and_takes_a_secret_as_it_stands() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("keys");
    let secret = b"bench-only-secret-0123456789abcdefghijklmnop";
    let imported = import_hs256(&dir, secret, &clock()).unwrap();
    assert_eq!(fs::read(dir.join(format!("HS256-{}.secret", imported.kid))).unwrap(), secret);
    let ring = KeyRing::open(&dir, Algorithm::Hs256, &clock()).unwrap();
    assert_eq!(active(&ring, Algorithm::Hs256), imported.kid);
    assert!(matches!(import_hs256(&dir, b"short", &clock()), Err(Error::Unfit(Fault::Short))));
    assert!(matches!(import_pem(&dir, secret, &clock()), Err(Error::Unfit(Fault::NotPem))));
}

#[test]
fn a_stray_key_is_refused_by_name_with_the_remedy() {
    for stray in ["es256.pem", "ES256-short.pem", "HS256-NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs.pem", "x.secret"] {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(stray), "x").unwrap();
        let error = refusal(home.path());
        assert!(error.contains(stray) && error.contains("wxgate keys import"), "{error}");
    }
}

#[test]
fn other_files_in_the_directory_are_left_alone() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("refresh.key"), "x").unwrap();
    fs::write(home.path().join(".ES256-half.pem.0198"), "x").unwrap();
    fs::create_dir(home.path().join("lost+found")).unwrap();
    assert!(KeyRing::open(home.path(), Algorithm::Es256, &clock()).is_ok());
}

#[test]
fn a_damaged_directory_is_refused_and_never_repaired_silently() {
    type Damage = fn(&Path, &str);
    let damage: [(&str, Damage); 6] = [
        ("ring.json", |dir, _| fs::write(dir.join("ring.json"), "{").unwrap()),
        ("ring.json", |dir, kid| {
            let twice = format!(r#"{{"kid":"{kid}","alg":"ES256","state":"active","since":0,"created_at":0}}"#);
            fs::write(dir.join("ring.json"), format!(r#"{{"version":1,"keys":[{twice},{twice}]}}"#)).unwrap();
        }),
        ("ring.json", |dir, _| {
            let path = r#"{"kid":"../../../../../../../../../../../../../etc/pass","alg":"ES256","state":"active"}"#;
            fs::write(dir.join("ring.json"), format!(r#"{{"version":1,"keys":[{path}]}}"#)).unwrap();
        }),
        ("file is gone", |dir, kid| fs::remove_file(dir.join(format!("ES256-{kid}.pem"))).unwrap()),
        ("does not hold the key", |dir, kid| {
            fs::write(dir.join(format!("ES256-{kid}.pem")), Key::generate(Algorithm::Es256).unwrap()).unwrap();
        }),
        ("chmod 600", |dir, kid| {
            let path = dir.join(format!("ES256-{kid}.pem"));
            fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        }),
    ];
    for (said, damage) in damage {
        let home = tempfile::tempdir().unwrap();
        let kid = active(&KeyRing::open(home.path(), Algorithm::Es256, &clock()).unwrap(), Algorithm::Es256);
        damage(home.path(), &kid);
        let error = refusal(home.path());
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_directory_that_everybody_may_write_to_is_refused() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = refusal(home.path());
    assert!(error.contains("chmod 700"), "{error}");
}

#[test]
fn a_start_that_was_cut_short_between_key_and_ring_is_finished_by_the_next() {
    let home = tempfile::tempdir().unwrap();
    let kid = active(&KeyRing::open(home.path(), Algorithm::Es256, &clock()).unwrap(), Algorithm::Es256);
    fs::remove_file(home.path().join("ring.json")).unwrap();
    let ring = KeyRing::open(home.path(), Algorithm::Es256, &clock()).unwrap();
    assert_eq!((active(&ring, Algorithm::Es256), ring.entries().len()), (kid, 1));
}

#[test]
fn a_key_file_that_no_ring_names_is_not_used() {
    let home = tempfile::tempdir().unwrap();
    KeyRing::open(home.path(), Algorithm::Es256, &clock()).unwrap();
    let content = Key::generate(Algorithm::Es256).unwrap();
    let key = Key::from_pem(&content).unwrap();
    Directory::open(home.path().into()).unwrap().write(&key, &content).unwrap();
    let ring = KeyRing::open(home.path(), Algorithm::Es256, &clock()).unwrap();
    assert!(ring.verifying_key(key.kid()).is_none());
}
