//! Promise 4 of the gateway, as properties: nothing but the token that was signed verifies, and never a token that
//! `jsonwebtoken` refuses.

use jsonwebtoken::{DecodingKey, Validation};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::Algorithm;
use crate::token::fixture::{self, b64, kid, section, signed};

/// A verifier and one good token per algorithm.
struct Scene {
    verifier: Verifier,
    tokens: Vec<(Algorithm, String)>,
}

fn scene() -> Scene {
    let claims = fixture::claims(Clock::system().now()).to_string();
    let token = |a| (a, signed(a, &fixture::header(a).to_string(), &claims));
    Scene {
        verifier: Verifier::new(fixture::ring(), &section(Algorithm::Es256), Clock::system()),
        tokens: Algorithm::ALL.map(token).to_vec(),
    }
}

/// What the library says of a token, given the right key and the rules that it knows.
fn oracle(algorithm: Algorithm, token: &str) -> Option<Value> {
    let theirs = match algorithm {
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
    };
    let key = match fixture::ring().signing_key(algorithm)?.jwk() {
        Some(jwk) => DecodingKey::from_jwk(&serde_json::from_str(jwk).ok()?).ok()?,
        None => DecodingKey::from_secret(fixture::file(algorithm)),
    };
    let mut validation = Validation::new(theirs);
    validation.set_audience(&["wxgate"]);
    validation.set_issuer(&[fixture::ISSUER]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.leeway = 60;
    validation.validate_nbf = true;
    jsonwebtoken::decode(token, &key, &validation).ok().map(|data| data.claims)
}

/// One change to a text: a bit, a byte, a removal, an insertion, a swap of two parts.
fn mutate(token: &str, kind: u8, at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = token.as_bytes().to_vec();
    let at = at % bytes.len();
    match kind % 6 {
        0 => bytes[at] ^= 1 << (byte % 8),
        1 => bytes[at] = byte,
        2 => drop(bytes.remove(at)),
        3 => bytes.insert(at, byte),
        4 => bytes.truncate(at),
        _ => {
            let mut parts: Vec<&str> = token.split('.').collect();
            parts.swap(at % 3, usize::from(byte) % 3);
            bytes = parts.join(".").into_bytes();
        }
    }
    bytes
}

/// Values of every JSON type, the tempting ones among them.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,40}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop_oneof![Just("none"), Just("HS256"), Just("ES256"), Just("JWT"), Just("wxgate"), Just("1700000000")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{1,4}", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_change_to_a_token_is_refused(which in 0..4_usize, kind: u8, at: usize, byte: u8, twice: Option<(u8, usize, u8)>) {
        thread_local!(static SCENE: Scene = scene());
        SCENE.with(|scene| {
            let (algorithm, token) = &scene.tokens[which];
            let mut bytes = mutate(token, kind, at, byte);
            if let (Some((kind, at, byte)), Ok(once)) = (twice, std::str::from_utf8(&bytes))
                && !once.is_empty()
            {
                bytes = mutate(once, kind % 5, at, byte);
            }
            if bytes == token.as_bytes() {
                prop_assert!(scene.verifier.verify(&bytes).is_ok());
                prop_assert!(oracle(*algorithm, token).is_some());
            } else {
                prop_assert!(scene.verifier.verify(&bytes).is_err());
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_signed_header_with_any_other_alg_typ_or_kid_is_refused(
        member in prop_oneof![Just("alg"), Just("typ"), Just("kid")],
        to in value(),
        which in 0..4_usize,
    ) {
        thread_local!(static SCENE: Scene = scene());
        let algorithm = Algorithm::ALL[which];
        let mut header = fixture::header(algorithm);
        prop_assume!(header[member] != to);
        header[member] = to;
        let token = signed(algorithm, &header.to_string(), &fixture::claims(Clock::system().now()).to_string());
        prop_assert!(SCENE.with(|scene| scene.verifier.verify(token.as_bytes()).is_err()));
    }

    #[test]
    fn whatever_is_signed_verifies_only_if_the_library_accepts_it_and_says_the_same(
        changes in prop::collection::vec((claim(), prop::option::of(value())), 0..3),
        at in -100..100_i64,
    ) {
        thread_local!(static SCENE: Scene = scene());
        let now = Clock::system().now();
        let mut claims = fixture::claims(now);
        claims["exp"] = json!(now.secs() + at);
        for (name, value) in changes {
            match value {
                Some(value) => claims[name] = value,
                None => drop(claims.as_object_mut().unwrap().remove(name)),
            }
        }
        let header = json!({"kid": kid(Algorithm::Hs256), "alg": "HS256", "typ": "at+jwt"});
        let token = signed(Algorithm::Hs256, &header.to_string(), &claims.to_string());
        SCENE.with(|scene| {
            if let Ok(ours) = scene.verifier.verify(token.as_bytes()) {
                let theirs = oracle(Algorithm::Hs256, &token);
                prop_assert_eq!(theirs.as_ref(), Some(&claims));
                let text = |name: &str| claims[name].as_str().unwrap().to_owned();
                prop_assert_eq!(ours.member_id.as_str(), text("sub"));
                prop_assert_eq!(ours.session_id.as_str(), text("sid"));
                prop_assert_eq!(ours.openid.as_str(), text("openid"));
                prop_assert_eq!(ours.appid.as_str(), text("appid"));
                prop_assert_eq!(ours.unionid.as_ref().map(|u| u.as_str()), claims["unionid"].as_str());
                prop_assert_eq!(Some(ours.expires_at.secs()), claims["exp"].as_i64());
                prop_assert!(ours.expires_at > now);
            }
            Ok(())
        })?;
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), json in any::<String>()) {
        thread_local!(static SCENE: Scene = scene());
        SCENE.with(|scene| {
            let _ = scene.verifier.verify(&bytes);
            let shaped = format!("{}.{}.{}", b64(&json), b64(&bytes), b64(&bytes));
            let _ = scene.verifier.verify(shaped.as_bytes());
            let _ = Header::parse(json.as_bytes());
            let _ = Payload::parse(&bytes);
        });
    }
}

fn claim() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "iss",
        "aud",
        "sub",
        "sid",
        "appid",
        "client_id",
        "openid",
        "unionid",
        "roles",
        "jti",
        "auth_time",
        "iat",
        "nbf",
        "exp",
    ])
}
