//! What the tests of this module share: a ring with a key of every algorithm, a section, a grant, and a forger who holds
//! the keys and can sign anything.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::key::Key;
use super::keys::{KeyRing, import_hs256, import_pem};
use super::pkcs8;
use super::{Claims, Grant};
use crate::clock::{Clock, Timestamp};
use crate::config::{Algorithm, Token, TokenFormat};
use crate::ids::{AppId, MemberId, OpenId, SessionId, UnionId};

pub(super) const ISSUER: &str = "https://auth.example.test";

/// The files of one key of each algorithm; made once, since RSA takes its time.
static FILES: LazyLock<Vec<(Algorithm, Zeroizing<Vec<u8>>)>> =
    LazyLock::new(|| Algorithm::ALL.into_iter().map(|a| (a, Key::generate(a).unwrap())).collect());

pub(super) fn file(algorithm: Algorithm) -> &'static [u8] {
    &FILES.iter().find(|(a, _)| *a == algorithm).unwrap().1
}

pub(crate) fn ring() -> Arc<KeyRing> {
    let dir = tempfile::tempdir().unwrap();
    for algorithm in Algorithm::ALL {
        match algorithm {
            Algorithm::Hs256 => import_hs256(dir.path(), file(algorithm), &Clock::system()).unwrap(),
            _ => import_pem(dir.path(), file(algorithm), &Clock::system()).unwrap(),
        };
    }
    Arc::new(KeyRing::open(dir.path(), Algorithm::Es256, &Clock::system()).unwrap())
}

pub(crate) fn section(algorithm: Algorithm) -> Token {
    Token {
        issuer: ISSUER.into(),
        audience: vec!["wxgate".into()],
        algorithm,
        format: TokenFormat::Jwt,
        keys: crate::config::Keys::default(),
        rotate_every: None,
        access_ttl: Duration::from_secs(7200),
        refresh_ttl: Duration::from_secs(30 * 86_400),
        refresh_grace: Duration::from_secs(30),
        session_ttl: Duration::from_secs(180 * 86_400),
        renew_within: None,
        max_staleness: Duration::from_secs(7200),
        accept_bare: false,
    }
}

pub(crate) fn grant(now: Timestamp) -> Grant {
    Grant {
        member_id: MemberId::parse("member-1").unwrap(),
        session_id: SessionId::parse("session-1").unwrap(),
        appid: AppId::parse("wx0123456789abcdef").unwrap(),
        openid: OpenId::parse("oX-alice_0123456789012345678").unwrap(),
        unionid: Some(UnionId::parse("oU-alice").unwrap()),
        user_id: None,
        claims: String::new(),
        roles: vec!["admin".into(), "shop:read".into()],
        auth_time: now,
        session_expires_at: now.plus(Duration::from_secs(180 * 86_400)),
    }
}

/// What a token of [`grant`] says.
pub(super) fn caller(now: Timestamp) -> Claims {
    let grant = grant(now);
    Claims {
        member_id: grant.member_id,
        session_id: grant.session_id,
        appid: grant.appid,
        openid: grant.openid,
        unionid: grant.unionid,
        user_id: None,
        roles: grant.roles,
        jti: Some("jti-1".into()),
        auth_time: Some(now),
        issued_at: now,
        expires_at: now.plus(Duration::from_secs(7200)),
    }
}

/// The header as others write it: another order of members than ours.
pub(super) fn header(algorithm: Algorithm) -> Value {
    json!({ "alg": algorithm.name(), "typ": "at+jwt", "kid": kid(algorithm) })
}

pub(super) fn kid(algorithm: Algorithm) -> String {
    Key::from_file(algorithm, file(algorithm)).unwrap().kid().to_owned()
}

/// The claims of a token that another minter made with a key of the ring: no `auth_time`, a life of two days.
pub(super) fn claims(now: Timestamp) -> Value {
    json!({
        "iss": ISSUER, "aud": "wxgate", "sub": "10000000", "openid": "oXabcdefghijklmnopqrstuvwxyz",
        "unionid": "oUabcdefghijklmnopqrstuvwxyz", "appid": "wx0123456789abcdef", "client_id": "wx0123456789abcdef",
        "sid": "00000000000000000000000000000001", "jti": "00000000-0000-0001-0000-000000000000",
        "iat": now.secs(), "exp": now.secs() + 48 * 3600,
    })
}

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs `message` with the ring's key of `algorithm`, whatever it says.
pub(super) fn signature(algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
    let file = file(algorithm);
    let random = rand::SystemRandom::new();
    let der = || pkcs8::from_pem(file).unwrap();
    match algorithm {
        Algorithm::Hs256 => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, file), message).as_ref().to_vec(),
        Algorithm::Es256 => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der())
            .unwrap()
            .sign(&random, message)
            .unwrap()
            .as_ref()
            .to_vec(),
        Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8(&der()).unwrap().sign(message).as_ref().to_vec(),
        Algorithm::Rs256 => {
            let pair = RsaKeyPair::from_pkcs8(&der()).unwrap();
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
            signature
        }
    }
}

/// A token with exactly this header and these claims, rightly signed.
pub(super) fn signed(algorithm: Algorithm, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", b64(header), b64(claims));
    let signature = signature(algorithm, message.as_bytes());
    format!("{message}.{}", b64(signature))
}
