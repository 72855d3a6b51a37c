use std::time::Duration;

use proptest::prelude::*;

use super::super::fixture::{self, section};
use super::super::refresh::{FILE, RefreshToken};
use super::*;
use crate::config::{Algorithm, Token};
use crate::keyfile;

const NOW: Timestamp = Timestamp::from_millis(1_763_700_000_000);

fn handles(secret: u8, section: &Token, now: Timestamp) -> Handles {
    let dir = tempfile::tempdir().unwrap();
    keyfile::write(&dir.path().join(FILE), &[secret; 32]).unwrap();
    Handles::new(&RefreshSecret::open(dir.path()).unwrap(), section, Clock::manual(now))
}

fn ours() -> Handles {
    handles(1, &section(Algorithm::Es256), NOW)
}

fn grant() -> Grant {
    Grant { session_id: SessionId::new_v7(NOW), ..fixture::grant(NOW) }
}

fn issue(by: &Handles, grant: &Grant) -> String {
    by.issue(grant, NOW, NOW.plus(Duration::from_secs(7200))).unwrap().0.expose().clone()
}

#[test]
fn a_handle_leads_to_its_session_on_every_instance_until_it_ends() {
    let grant = grant();
    let (text, jti) = ours().issue(&grant, NOW, NOW.plus(Duration::from_secs(7200))).unwrap();
    let text = text.expose();
    assert_eq!(text.len(), 103);
    assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{text}");
    let read = ours().read(text.as_bytes()).unwrap();
    let said = Handle {
        session_id: grant.session_id.clone(),
        jti,
        issued_at: NOW,
        expires_at: NOW.plus(Duration::from_secs(7200)),
    };
    assert_eq!(read, said);
    let late = handles(1, &section(Algorithm::Es256), said.expires_at);
    assert_eq!(late.read(text.as_bytes()), Err(Error::Expired));
    assert_eq!(late.read_even_if_expired(text.as_bytes()), Ok(said));
    assert_ne!(&issue(&ours(), &grant), text, "two of one session differ");
}

#[test]
fn it_says_what_a_jwt_would_have_said() {
    let grant = grant();
    let handle = ours().read(issue(&ours(), &grant).as_bytes()).unwrap();
    let claims = handle.claims(grant.clone());
    let expected = Claims { jti: claims.jti.clone(), session_id: grant.session_id, ..fixture::caller(NOW) };
    assert_eq!(claims, expected);
}

#[test]
fn another_secret_issuer_or_audience_makes_other_handles() {
    let text = issue(&ours(), &grant());
    let base = || section(Algorithm::Es256);
    let elsewhere = Token { issuer: "https://other.example.test".into(), ..base() };
    let others = Token { audience: vec!["other".into()], ..base() };
    for stranger in [handles(2, &base(), NOW), handles(1, &elsewhere, NOW), handles(1, &others, NOW)] {
        assert_eq!(stranger.read(text.as_bytes()), Err(Error::Signature));
    }
    let more = Token { audience: vec!["other".into(), "wxgate".into()], ..base() };
    assert!(handles(1, &more, NOW).read(text.as_bytes()).is_ok(), "one of the audiences is enough, as with a JWT");
}

#[test]
fn one_from_the_future_is_not_good_yet() {
    let text = issue(&ours(), &grant());
    let early = |secs| handles(1, &section(Algorithm::Es256), NOW.minus(Duration::from_secs(secs)));
    assert!(early(60).read(text.as_bytes()).is_ok());
    assert_eq!(early(61).read(text.as_bytes()), Err(Error::Claim("iat")));
}

#[test]
fn only_sessions_of_ours_have_one() {
    let upper = SessionId::parse(&SessionId::new_v7(NOW).as_str().to_ascii_uppercase()).unwrap();
    for session_id in [SessionId::parse("session-1").unwrap(), upper] {
        let grant = Grant { session_id, ..grant() };
        assert_eq!(ours().issue(&grant, NOW, NOW).unwrap_err(), Unissued::Session);
    }
}

#[test]
fn no_other_token_is_one_and_it_is_no_other() {
    let text = issue(&ours(), &grant());
    assert!(RefreshToken::parse(&text).is_err());
    let claims = fixture::claims(NOW).to_string();
    let jwt = fixture::signed(Algorithm::Es256, &fixture::header(Algorithm::Es256).to_string(), &claims);
    assert!(!is_handle(jwt.as_bytes()));
    assert_eq!(ours().read(jwt.as_bytes()), Err(Error::Malformed));
    assert!(!format!("{:?}", ours()).contains('1'));
}

proptest! {
    #[test]
    fn a_handle_that_was_changed_anywhere_is_refused(at in 0usize..103, byte in any::<u8>(), kind in 0u8..4) {
        let ours = ours();
        let text = issue(&ours, &grant()).into_bytes();
        let mut changed = text.clone();
        match kind {
            0 => changed[at] ^= 1 << (byte % 8),
            1 => changed[at] = byte,
            2 => drop(changed.remove(at)),
            _ => changed.insert(at, byte),
        }
        prop_assume!(changed != text);
        prop_assert!(ours.read_even_if_expired(&changed).is_err());
    }

    #[test]
    fn nothing_that_somebody_makes_up_is_a_handle(mut bytes in prop::collection::vec(any::<u8>(), BYTES)) {
        bytes.truncate(BYTES);
        let text = format!("wxs_{}", fixture::b64(&bytes));
        prop_assert!(is_handle(text.as_bytes()));
        prop_assert_eq!(ours().read_even_if_expired(text.as_bytes()), Err(Error::Signature));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ours().read(&bytes);
    }
}
