//! The keys behind the tokens: four algorithms, keys from elsewhere, and changes that lock nobody out.

use std::time::Duration;

use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::gateway::{APPID, Gateway, Member, ROUTES, START};
use crate::support::process::{Exit, Process};

fn signed_with(algorithm: &str) -> String {
    format!("token.algorithm = \"{algorithm}\"\n{ROUTES}")
}

#[tokio::test]
async fn every_algorithm_signs_and_verifies_when_the_configuration_says_so() {
    for algorithm in ["ES256", "EdDSA", "RS256", "HS256"] {
        let gateway = Gateway::with(&signed_with(algorithm)).await;
        let alice = gateway.login("alice").await;
        let header = jsonwebtoken::decode_header(alice.token()).unwrap();
        assert_eq!(format!("{:?}", header.alg), algorithm);
        assert_eq!(header.typ.as_deref(), Some("at+jwt"));
        assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200, "{algorithm}");
        assert_eq!(gateway.upstream.requests()[0].all("x-wx-openid"), [alice.openid()]);
        let published = gateway.get("/.well-known/jwks.json", None).await.json();
        let kids: Vec<&Value> = published["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect();
        // A shared secret has no public half.
        assert_eq!(kids.contains(&&json!(header.kid)), algorithm != "HS256", "{algorithm}");
        assert!(!published.to_string().contains("oct"), "{published}");
    }
}

#[tokio::test]
async fn after_a_change_of_algorithm_tokens_of_the_old_one_stay_good() {
    let mut gateway = Gateway::with(&signed_with("ES256")).await;
    let mut held = vec![gateway.login("alice").await];
    for algorithm in ["HS256", "EdDSA", "ES256"] {
        gateway = gateway.restart(&signed_with(algorithm)).await;
        // Its key is published before it signs.
        gateway.clock.advance(wxgate::token::rotation::LEAD);
        gateway.inner().tend_keys().await.unwrap();
        held.push(gateway.login("alice").await);
        for member in &held {
            assert_eq!(gateway.get("/api/x", Some(member.token())).await.status, 200, "now {algorithm}");
        }
    }
    let algorithm = |n: usize| jsonwebtoken::decode_header(held[n].token()).unwrap().alg;
    assert_eq!(algorithm(0), algorithm(3));
    assert_ne!(algorithm(0), algorithm(1));
}

/// Runs `wxgate keys import` as an operator does, has the gateway reload, and returns the key's id.
async fn import(gateway: &Gateway, content: &[u8], arguments: &[&str]) -> String {
    let folder = gateway.dir.path();
    std::fs::write(folder.join("the-key"), content).unwrap();
    let arguments = [&["keys", "import", "the-key"], arguments].concat();
    let mut process = Process::wxgate_in(folder, &arguments);
    let exit = process.exit().await;
    let output = process.output();
    assert_eq!(exit, Exit::Code(0), "{output:#?}");
    gateway.inner().reload().await.unwrap();
    output.stdout[0].split(' ').nth(2).unwrap().to_owned()
}

/// What somebody else's minter writes: no auth_time, a life of two days.
fn foreign_claims() -> Value {
    json!({
        "iss": "https://api.example.com", "aud": "wxgate", "sub": "10000000", "sid": "session-of-another-minter",
        "openid": "oXabcdefghijklmnopqrstuvwxyz", "appid": APPID, "client_id": APPID, "jti": "a-jti",
        "iat": START, "exp": START + 48 * 3600,
    })
}

fn foreign_token(algorithm: jsonwebtoken::Algorithm, kid: &str, key: &EncodingKey) -> String {
    signed(algorithm, kid, key, &foreign_claims())
}

fn signed(algorithm: jsonwebtoken::Algorithm, kid: &str, key: &EncodingKey, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.typ = Some("at+jwt".to_owned());
    header.kid = Some(kid.to_owned());
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

fn pem(pkcs8: &[u8]) -> String {
    let text = STANDARD.encode(pkcs8);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

#[tokio::test]
async fn a_token_that_somebody_else_signed_with_an_imported_key_is_good() {
    use jsonwebtoken::Algorithm;

    let gateway = Gateway::start().await;
    let random = aws_lc_rs::rand::SystemRandom::new();
    let ecdsa = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let rsa = aws_lc_rs::signature::RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa: aws_lc_rs::encoding::Pkcs8V1Der<'_> = aws_lc_rs::encoding::AsDer::as_der(&rsa).unwrap();
    let (ecdsa, ed25519, rsa) = (pem(ecdsa.as_ref()), pem(ed25519.as_ref()), pem(rsa.as_ref()));
    let secret = b"a-shared-secret-of-at-least-32-bytes";
    let keys = [
        (Algorithm::ES256, ecdsa.as_bytes(), &[][..], EncodingKey::from_ec_pem(ecdsa.as_bytes()).unwrap()),
        (Algorithm::EdDSA, ed25519.as_bytes(), &[], EncodingKey::from_ed_pem(ed25519.as_bytes()).unwrap()),
        (Algorithm::RS256, rsa.as_bytes(), &[], EncodingKey::from_rsa_pem(rsa.as_bytes()).unwrap()),
        (Algorithm::HS256, secret, &["--hs256"], EncodingKey::from_secret(secret)),
    ];
    let alice = gateway.login("alice").await;
    for (n, (algorithm, file, arguments, key)) in keys.into_iter().enumerate() {
        let kid = import(&gateway, file, arguments).await;
        let answer = gateway.get("/api/x", Some(&foreign_token(algorithm, &kid, &key))).await;
        assert_eq!(answer.status, 200, "{algorithm:?}: {}", answer.body);
        let seen = &gateway.upstream.requests()[n];
        assert_eq!(seen.all("x-wx-openid"), ["oXabcdefghijklmnopqrstuvwxyz"]);
        assert_eq!(seen.all("x-wxgate-member"), ["10000000"]);
        assert_eq!(seen.all("x-wxgate-session"), ["session-of-another-minter"]);
    }
    assert_eq!(gateway.get("/auth/me", Some(alice.token())).await.status, 200, "the key before still verifies");
    // The imported key of the configured algorithm signs from now on.
    let kid = |token: &str| jsonwebtoken::decode_header(token).unwrap().kid;
    assert_ne!(kid(gateway.login("alice").await.token()), kid(alice.token()));
}

#[tokio::test]
async fn a_long_lived_token_that_was_logged_out_does_not_come_back() {
    let gateway = Gateway::start().await;
    let secret = b"a-shared-secret-of-at-least-32-bytes";
    let kid = import(&gateway, secret, &["--hs256"]).await;
    let token = foreign_token(jsonwebtoken::Algorithm::HS256, &kid, &EncodingKey::from_secret(secret));
    let logout = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(&token);
    assert_eq!(logout.send().await.unwrap().status(), 204);
    // Longer than any token of ours lives, shorter than this one.
    gateway.clock.advance(Duration::from_secs(40 * 3600));
    let kept = gateway.inner().kept();
    kept.revocations.forget(&kept.revocations.due(gateway.clock.now()), gateway.clock.now());
    kept.sessions.sweep(gateway.clock.now()).await.unwrap();
    assert_eq!(gateway.get("/api/x", Some(&token)).await.code(), "token_revoked");
    let gateway = gateway.restart(ROUTES).await;
    assert_eq!(gateway.get("/api/x", Some(&token)).await.code(), "token_revoked");
}

#[tokio::test]
async fn an_end_and_roles_are_remembered_for_as_long_as_a_token_of_an_imported_key_may_live() {
    let gateway = Gateway::start().await;
    let secret = b"a-shared-secret-of-at-least-32-bytes";
    let kid = import(&gateway, secret, &["--hs256"]).await;
    let key = EncodingKey::from_secret(secret);
    let of = |member: &Member| {
        let mut claims = foreign_claims();
        (claims["sub"], claims["sid"], claims["roles"]) = (json!(member.id()), json!("another"), json!(["admin"]));
        signed(jsonwebtoken::Algorithm::HS256, &kid, &key, &claims)
    };
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let (of_alice, of_bob) = (of(&alice), of(&bob));
    gateway.change(&alice, json!({ "roles": ["vip"] })).await;
    gateway.revoke(json!({ "member": bob.id() })).await;
    gateway.clock.advance(Duration::from_secs(40 * 3600));
    gateway.sweep().await;
    let refused_and_roles = async |gateway: &Gateway| {
        assert_eq!(gateway.get("/api/x", Some(&of_bob)).await.code(), "token_revoked");
        assert_eq!(gateway.get("/api/x", Some(&of_alice)).await.status, 200);
        assert_eq!(gateway.upstream.requests().pop().unwrap().all("x-wxgate-roles"), ["vip"]);
    };
    refused_and_roles(&gateway).await;
    let dir = gateway.end().await;
    let gateway = Gateway::in_dir(dir, ROUTES).await;
    gateway.clock.advance(Duration::from_secs(40 * 3600));
    refused_and_roles(&gateway).await;
}

#[tokio::test]
async fn a_kick_is_remembered_for_as_long_as_tokens_lived_before() {
    let gateway = Gateway::with(&format!("token.access_ttl = \"24h\"\n{ROUTES}")).await;
    let alice = gateway.login("alice").await;
    let session = alice.session();
    gateway.rewrite(|text| text.replace("\"24h\"", "\"1h\"")).await;
    // As after a store that has lost the session and kept the rest: the epoch alone ends it.
    gateway.meddle(&format!("DELETE FROM sessions WHERE session_id = '{session}'"));
    gateway.clock.advance(Duration::from_secs(1));
    gateway.revoke(json!({ "member": alice.id() })).await;
    gateway.clock.advance(Duration::from_secs(20 * 3600));
    gateway.sweep().await;
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.code(), "token_revoked");
}

#[tokio::test]
async fn a_foreign_token_without_a_session_here_is_no_member_to_the_endpoints() {
    let gateway = Gateway::start().await;
    let secret = b"a-shared-secret-of-at-least-32-bytes";
    let kid = import(&gateway, secret, &["--hs256"]).await;
    let token = foreign_token(jsonwebtoken::Algorithm::HS256, &kid, &EncodingKey::from_secret(secret));
    let me = gateway.get("/auth/me", Some(&token)).await;
    assert_eq!((me.status, me.code().as_str()), (401, "token_revoked"));
}

#[tokio::test]
async fn a_key_that_is_not_fit_is_refused_and_changes_nothing() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let folder = gateway.dir.path();
    let cases: [(&[u8], &[&str], &str); 3] = [
        (b"too short", &["--hs256"], "32 bytes"),
        (b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", &[], "openssl pkey"),
        (b"no key at all", &[], "PEM"),
    ];
    for (content, arguments, said) in cases {
        std::fs::write(folder.join("unfit"), content).unwrap();
        let mut process = Process::wxgate_in(folder, &[&["keys", "import", "unfit"], arguments].concat());
        assert_eq!(process.exit().await, Exit::Code(1));
        let stderr = process.output().stderr.join("\n");
        assert!(stderr.contains(said) && stderr.contains("unfit"), "{stderr}");
    }
    gateway.inner().reload().await.unwrap();
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200);
}
