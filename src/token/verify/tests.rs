//! The refusals, as tables. What the forger here signs is rightly signed: each refusal is of the content.

use serde_json::{Value, json};

use super::*;
use crate::config::Algorithm;
use crate::token::fixture::{self, b64, kid, section, signed};
use crate::token::mint::Minter;

const ALG: Algorithm = Algorithm::Hs256;

fn verifier() -> Verifier {
    Verifier::new(fixture::ring(), &section(ALG), Clock::system())
}

fn now() -> Timestamp {
    Clock::system().now()
}

/// A rightly signed token whose header is this text.
fn with_header(algorithm: Algorithm, header: &str) -> String {
    signed(algorithm, header, &fixture::claims(now()).to_string())
}

/// A rightly signed token whose claims are this text.
fn with_claims(claims: &str) -> String {
    signed(ALG, &fixture::header(ALG).to_string(), claims)
}

/// The usual claims with `name` set to `value`, or without it.
fn changed(name: &str, value: Option<Value>) -> String {
    let mut claims = fixture::claims(now());
    let members = claims.as_object_mut().unwrap();
    match value {
        Some(value) => members.insert(name.into(), value),
        None => members.remove(name),
    };
    with_claims(&claims.to_string())
}

/// The usual header with `name` set to this JSON, or without it, and other members in front.
fn header_with(name: &str, value: Option<&str>) -> String {
    let mut header = fixture::header(ALG);
    header.as_object_mut().unwrap().remove(name);
    let rest = header.to_string();
    match value {
        Some(value) => format!(r#"{{"{name}":{value},{}"#, &rest[1..]),
        None => rest,
    }
}

#[test]
fn what_the_mint_makes_verifies_with_every_algorithm() {
    let ring = fixture::ring();
    let grant = fixture::grant(now());
    for algorithm in Algorithm::ALL {
        let section = section(algorithm);
        let minted = Minter::new(ring.clone(), &section, Clock::system()).mint(&grant).unwrap();
        let claims = Verifier::new(ring.clone(), &section, Clock::system()).verify(minted.token.expose().as_bytes());
        assert_eq!(claims.as_ref(), Ok(&minted.claims), "{algorithm:?}");
        assert_eq!(minted.expires_in.as_secs(), 7200);
    }
}

#[test]
fn a_token_of_another_minter_verifies_with_every_key_of_the_ring() {
    let verifier = verifier();
    for algorithm in Algorithm::ALL {
        let claims = fixture::claims(now()).to_string();
        let token = signed(algorithm, &fixture::header(algorithm).to_string(), &claims);
        let claims = verifier.verify(token.as_bytes()).unwrap();
        assert_eq!((claims.member_id.as_str(), claims.auth_time, claims.roles.len()), ("10000000", None, 0));
    }
    let bare = json!({"iss": fixture::ISSUER, "aud": ["x", "wxgate"], "sub": "a", "sid": "b", "appid": "c", "openid": "d",
        "iat": now().secs(), "exp": now().secs() + 60, "extra": {"deep": [1.5, null]}});
    assert!(verifier.verify(with_claims(&bare.to_string()).as_bytes()).is_ok());
}

#[test]
fn no_spelling_of_none_is_an_algorithm() {
    let verifier = verifier();
    for alg in ["none", "None", "NONE", "nOnE", "", "hs256", "HS256 ", "HS512", "ES256K", "Ed25519"] {
        for signature in ["", "AA", &b64([0; 32])] {
            let header = header_with("alg", Some(&format!("{alg:?}")));
            let token = format!("{}.{}.{signature}", b64(&header), b64(fixture::claims(now()).to_string()));
            assert_eq!(verifier.verify(token.as_bytes()), Err(Error::Algorithm), "{alg}");
        }
    }
}

#[test]
fn alg_is_one_string_and_the_keys_own() {
    let verifier = verifier();
    for alg in
        [r#"["HS256"]"#, "256", "null", "true", r#"{"a":1}"#, r#""HS256","alg":"HS256""#, r#""HS256","alg":"none""#]
    {
        let token = with_header(ALG, &header_with("alg", Some(alg)));
        assert_eq!(verifier.verify(token.as_bytes()), Err(Error::Malformed), "{alg}");
    }
    assert_eq!(verifier.verify(with_header(ALG, &header_with("alg", None)).as_bytes()), Err(Error::Algorithm));
    for algorithm in Algorithm::ALL {
        for other in ["HS256", "HS384", "HS512", "ES256", "ES384", "RS256", "RS384", "PS256", "EdDSA", "Ed25519"] {
            if other != algorithm.name() {
                let header = json!({"alg": other, "typ": "at+jwt", "kid": kid(algorithm)});
                let token = with_header(algorithm, &header.to_string());
                assert_eq!(verifier.verify(token.as_bytes()), Err(Error::Algorithm), "{algorithm:?} as {other}");
            }
        }
    }
}

#[test]
fn our_public_key_is_no_secret() {
    use aws_lc_rs::hmac;
    let ring = fixture::ring();
    let verifier = verifier();
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Rs256] {
        let jwk = ring.signing_key(algorithm).unwrap().jwk().unwrap();
        let members: Value = serde_json::from_str(jwk).unwrap();
        let mut secrets = vec![jwk.as_bytes().to_vec(), jwk.replace(',', ", ").into_bytes()];
        for value in members.as_object().unwrap().values().map(|v| v.as_str().unwrap()) {
            secrets.push(value.into());
            secrets.push(URL_SAFE_NO_PAD.decode(value).unwrap_or_default());
        }
        let point = [b"\x04".as_slice(), &secrets.concat()].concat();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", b64(&point));
        secrets.extend([point, pem.clone().into_bytes(), pem.trim_end().into()]);
        for secret in secrets {
            for kid in [kid(algorithm), kid(Algorithm::Hs256)] {
                let header = json!({"alg": "HS256", "typ": "at+jwt", "kid": kid});
                let message = format!("{}.{}", b64(header.to_string()), b64(fixture::claims(now()).to_string()));
                let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
                let refused = verifier.verify(format!("{message}.{}", b64(tag)).as_bytes()).unwrap_err();
                assert!(matches!(refused, Error::Algorithm | Error::Signature));
            }
        }
    }
}

#[test]
fn kid_is_looked_up_in_the_ring_and_nowhere_else() {
    let verifier = verifier();
    let long = "A".repeat(4000);
    let own = kid(ALG);
    for kid in [
        "",
        "../../../../dev/null",
        "/etc/passwd",
        "' OR 1=1 --",
        "https://evil.test/key",
        "file:///etc/passwd",
        "a\0",
        &format!("{own}\0"),
        &format!("{own} "),
        &own[..42],
        &own.to_lowercase(),
        &long,
    ] {
        let token = with_header(ALG, &header_with("kid", Some(&json!(kid).to_string())));
        assert_eq!(verifier.verify(token.as_bytes()), Err(Error::UnknownKey), "{kid}");
    }
    assert_eq!(verifier.verify(with_header(ALG, &header_with("kid", None)).as_bytes()), Err(Error::UnknownKey));
    for kid in ["null", "1", r#"{"a":1}"#, &format!(r#"["{own}"]"#), &format!(r#""{own}","kid":"{own}""#)] {
        let token = with_header(ALG, &header_with("kid", Some(kid)));
        assert_eq!(verifier.verify(token.as_bytes()), Err(Error::Malformed), "{kid}");
    }
    let another = with_header(ALG, &header_with("kid", Some(&json!(kid(Algorithm::Es256)).to_string())));
    assert_eq!(verifier.verify(another.as_bytes()), Err(Error::Algorithm));
}

#[test]
fn only_the_typ_of_an_access_token_is_accepted() {
    let verifier = verifier();
    for typ in ["JWT", "jwt", "", "AT+JWT", "at+jwt ", "application/at+jwt", "wxgate-assertion+jwt", "refresh", "JOSE"]
    {
        let token = with_header(ALG, &header_with("typ", Some(&format!("{typ:?}"))));
        assert_eq!(verifier.verify(token.as_bytes()), Err(Error::Type), "{typ}");
    }
    assert_eq!(verifier.verify(with_header(ALG, &header_with("typ", None)).as_bytes()), Err(Error::Type));
    let list = with_header(ALG, &header_with("typ", Some(r#"["at+jwt"]"#)));
    assert_eq!(verifier.verify(list.as_bytes()), Err(Error::Malformed));
}

#[test]
fn a_header_that_brings_a_key_or_changes_the_meaning_is_refused() {
    let verifier = verifier();
    for (name, value) in [
        ("jku", r#""https://evil.test/jwks.json""#),
        ("x5u", r#""https://evil.test/cert.pem""#),
        ("jwk", r#"{"kty":"oct","k":"AAAA"}"#),
        ("x5c", r#"["MIIB"]"#),
        ("crit", r#"["exp"]"#),
        ("crit", "[]"),
        ("b64", "false"),
        ("b64", "true"),
        ("zip", r#""DEF""#),
        ("cty", r#""JWT""#),
        ("enc", r#""A128GCM""#),
        ("p2c", "2147483647"),
    ] {
        let token = with_header(ALG, &header_with(name, Some(value)));
        assert_eq!(verifier.verify(token.as_bytes()), Err(Error::Malformed), "{name}");
        let escaped = header_with(&format!("\\u00{:02x}{}", name.as_bytes()[0], &name[1..]), Some(value));
        assert_eq!(verifier.verify(with_header(ALG, &escaped).as_bytes()), Err(Error::Malformed), "{escaped}");
    }
    let harmless = with_header(ALG, &header_with("x5t", Some(r#""abc""#)));
    assert!(verifier.verify(harmless.as_bytes()).is_ok(), "RFC 7515, section 4: others are ignored");
}

#[test]
fn a_header_is_one_object_in_utf8() {
    let verifier = verifier();
    let usual = fixture::header(ALG).to_string();
    for header in
        ["", "null", "[]", "\"x\"", "{", &format!("{usual}x"), &format!("[{usual}]"), &format!("\u{feff}{usual}")]
    {
        assert_eq!(verifier.verify(with_header(ALG, header).as_bytes()), Err(Error::Malformed), "{header}");
    }
    let mut bytes = usual.clone().into_bytes();
    bytes.splice(1..1, *b"\"\xff\":1,");
    let token = format!("{}.{}.{}", b64(bytes), b64("{}"), b64([0; 32]));
    assert_eq!(verifier.verify(token.as_bytes()), Err(Error::Malformed));
    let many: String = (0..300).map(|n| format!("\"{n}\":0,")).collect();
    let crowded = format!("{{{many}{}", &usual[1..]);
    assert_eq!(verifier.verify(with_header(ALG, &crowded).as_bytes()), Err(Error::Malformed));
}

#[test]
fn claims_are_one_object_in_utf8() {
    let verifier = verifier();
    let usual = fixture::claims(now()).to_string();
    let utf16: Vec<u8> = usual.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let latin1 = [&b"{\"nickname\":\"Andr\xe9\","[..], &usual.as_bytes()[1..]].concat();
    let overlong = [&b"{\"\xc0\xa0\":1,"[..], &usual.as_bytes()[1..]].concat();
    let surrogate = [&b"{\"a\":\"\xed\xa0\x80\","[..], &usual.as_bytes()[1..]].concat();
    let with_mark = format!("\u{feff}{usual}").into_bytes();
    for claims in [utf16, latin1, overlong, surrogate, with_mark, format!("[{usual}]").into_bytes()] {
        let message = format!("{}.{}", b64(fixture::header(ALG).to_string()), b64(&claims));
        let token = format!("{message}.{}", b64(fixture::signature(ALG, message.as_bytes())));
        assert_eq!(verifier.verify(token.as_bytes()), Err(Error::Malformed), "{claims:x?}");
    }
}

#[test]
fn an_ecdsa_signature_has_one_form() {
    // The order of P-256 (FIPS 186-5; SEC 2, section 2.4.2).
    let order: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let verifier = verifier();
    let token = with_header(Algorithm::Es256, &fixture::header(Algorithm::Es256).to_string());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let good = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let integer = |half: &[u8]| [&[2, 33, 0][..], half].concat();
    let der = [vec![0x30, 70], integer(&good[..32]), integer(&good[32..])].concat();
    let bad: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0],
        vec![0; 64],
        vec![0xff; 64],
        [order, order].concat(),
        [[0; 32], order].concat(),
        [&good[..32], &[0; 32]].concat(),
        [&[0; 32], &good[32..]].concat(),
        good[..63].to_vec(),
        [&good[..], &[0]].concat(),
        [&[0], &good[..]].concat(),
        good.repeat(2),
        der,
        vec![1; MAX_SIGNATURE],
    ];
    for bad in bad {
        let refused = verifier.verify(format!("{message}.{}", b64(&bad)).as_bytes());
        assert_eq!(refused, Err(Error::Signature), "{bad:02x?}");
    }
    let endless = format!("{message}.{}", b64(vec![1; MAX_SIGNATURE + 1]));
    assert_eq!(verifier.verify(endless.as_bytes()), Err(Error::Malformed));
    assert!(verifier.verify(token.as_bytes()).is_ok());
}

#[test]
fn a_payload_is_signed_byte_for_byte() {
    let verifier = verifier();
    let claims = fixture::claims(now());
    let token = with_claims(&claims.to_string());
    let parts: Vec<&str> = token.split('.').collect();
    let respaced = format!("{}.{}.{}", parts[0], b64(serde_json::to_string_pretty(&claims).unwrap()), parts[2]);
    assert_eq!(verifier.verify(respaced.as_bytes()), Err(Error::Signature));
}

#[test]
fn base64url_is_strict() {
    let verifier = verifier();
    // 43 characters hold 32 bytes and two bits that must be zero.
    let token = with_claims(&fixture::claims(now()).to_string());
    let (front, last) = token.split_at(token.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = alphabet.find(last).unwrap();
    for bits in 1..4 {
        let loose = format!("{front}{}", &alphabet[at + bits..=at + bits]);
        assert_eq!(verifier.verify(loose.as_bytes()), Err(Error::Malformed), "unused bits");
    }
    let parts: Vec<&str> = token.split('.').collect();
    for (n, part) in parts.iter().enumerate() {
        for bad in
            [format!("{part}="), format!("{part}=="), format!("{part}\n"), format!(" {part}"), format!("+/{part}")]
        {
            let mut parts = parts.clone();
            parts[n] = &bad;
            // A loose payload is rightly signed here: even then it is refused.
            let message = parts[..2].join(".");
            let signature = if n == 2 { bad.clone() } else { b64(fixture::signature(ALG, message.as_bytes())) };
            let token = format!("{message}.{signature}");
            assert_eq!(verifier.verify(token.as_bytes()), Err(Error::Malformed), "{n} {bad}");
        }
    }
}

#[test]
fn a_token_has_three_parts_and_a_bounded_length() {
    let verifier = verifier();
    let token = with_claims(&fixture::claims(now()).to_string());
    let (two, _) = token.rsplit_once('.').unwrap();
    let json = format!(r#"{{"payload":"e30","signatures":[{{"protected":"{}"}}]}}"#, &token[..20]);
    let jwe = format!("{}.AA.AA.AA.AA", b64(r#"{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483647}"#));
    let (long, deep) = ("A".repeat(60_000), "[".repeat(20_000));
    for bad in [
        "",
        ".",
        "..",
        "...",
        two,
        &format!("{token}."),
        &format!("{token}.AA"),
        &format!("{token}.AA.AA"),
        &format!(".{token}"),
        &format!("{token}{token}"),
        &format!("{two}.."),
        &json,
        &jwe,
        &long,
        &format!("{token}{long}"),
        &format!("{}.{}.AA", b64(&deep), b64(&deep)),
        &"A".repeat(1 << 20),
    ] {
        assert_eq!(verifier.verify(bad.as_bytes()), Err(Error::Malformed), "{}", &bad[..bad.len().min(80)]);
    }
    assert_eq!(verifier.verify(b"\xff\xfe.\0.\0"), Err(Error::Malformed));
}

#[test]
fn deep_json_is_read_without_recursion() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = format!("{}1{}", open.repeat(20_000), close.repeat(20_000));
        let inside = |name: &str| format!(r#"{{"{name}":{deep}}}"#);
        assert_eq!(Header::parse(deep.as_bytes()).is_some(), open.starts_with('{'));
        assert!(Header::parse(inside("alg").as_bytes()).is_none());
        assert!(Header::parse(inside("other").as_bytes()).is_some());
        for claim in ["aud", "roles", "exp", "sub"] {
            assert_eq!(Payload::parse(inside(claim).as_bytes()).unwrap_err(), Some(claim));
        }
        assert!(Payload::parse(inside("other").as_bytes()).is_ok());
        assert!(Payload::parse(&inside("other").as_bytes()[..30_000]).is_err());
    }
}

#[test]
fn a_claim_stands_once() {
    let verifier = verifier();
    let usual = fixture::claims(now()).to_string();
    for name in ["sub", "exp", "openid", "iss", "aud", "roles", "other"] {
        for spelling in [name.to_owned(), format!("\\u{:04x}{}", name.as_bytes()[0], &name[1..])] {
            let twice = format!(r#"{{"{spelling}":"x","{name}":"x",{}"#, &usual[1..]);
            let refused = verifier.verify(with_claims(&twice).as_bytes()).unwrap_err();
            assert!(matches!(refused, Error::Malformed | Error::Claim(_)), "{name}");
        }
    }
    let same = format!(r#"{{"sub":"10000000",{}"#, &usual[1..]);
    assert_eq!(verifier.verify(with_claims(&same).as_bytes()), Err(Error::Malformed));
}

#[test]
fn each_claim_has_one_type_and_accepted_values() {
    let verifier = verifier();
    let now = now().secs();
    let text = [json!(null), json!(1), json!(true), json!(["a"]), json!({"a": "b"}), json!("")];
    let name = ["a\r\nX-Evil: 1", "a\0b", "a,b", "a b", "openid\u{f6}", "\u{5f20}", "\u{7f}", " ", &"a".repeat(129)];
    let time = [json!("1"), json!(null), json!(-1), json!([1]), json!(true), json!(now as f64 + 0.5), json!(1e300)];
    let mut table: Vec<(&'static str, Vec<Value>)> = vec![
        (
            "iss",
            vec![json!("https://auth.example.test/"), json!("HTTPS://auth.example.test"), json!([fixture::ISSUER])],
        ),
        (
            "aud",
            vec![
                json!("other"),
                json!([]),
                json!(["other"]),
                json!(["wxgate", 1]),
                json!([["wxgate"]]),
                json!("WXGATE"),
            ],
        ),
        ("exp", vec![json!(now * 1000), json!(u64::MAX)]),
        ("iat", vec![json!(now + 120)]),
        ("nbf", vec![json!(now + 120)]),
        ("auth_time", vec![json!(now + 120)]),
        ("client_id", vec![json!("wxfedcba9876543210")]),
        ("roles", vec![json!("admin"), json!(["admin", 1]), json!(null), json!([""]), json!([["admin"]])]),
    ];
    for claim in ["iss", "aud", "sub", "sid", "appid", "openid", "unionid", "jti", "client_id"] {
        let values = if claim == "aud" { &text[..3] } else { &text };
        table.push((claim, values.to_vec()));
    }
    for claim in ["sub", "sid", "appid", "openid", "unionid", "jti"] {
        table.push((claim, name.iter().map(|n| json!(n)).collect()));
    }
    table.push(("roles", name.iter().map(|n| json!(["ok", n])).collect()));
    for claim in ["exp", "iat", "nbf", "auth_time"] {
        table.push((claim, time.to_vec()));
    }
    for (claim, values) in table {
        for value in values {
            let refused = verifier.verify(changed(claim, Some(value.clone())).as_bytes());
            assert_eq!(refused, Err(Error::Claim(claim)), "{claim} = {value}");
        }
    }
    for claim in ["iss", "aud", "sub", "sid", "appid", "openid", "iat", "exp"] {
        assert_eq!(verifier.verify(changed(claim, None).as_bytes()), Err(Error::Claim(claim)), "{claim} missing");
    }
    for claim in ["unionid", "jti", "client_id"] {
        assert!(verifier.verify(changed(claim, None).as_bytes()).is_ok(), "{claim} may be missing");
    }
}

#[test]
fn numbers_that_overflow_are_refused() {
    let verifier = verifier();
    let usual = fixture::claims(now());
    let exp = usual["exp"].to_string();
    for number in
        ["1e400", "1e10", "1700000000.0", "99999999999999999999999", "-0", "-1", "0x7fffffff", "01700000000", "+1"]
    {
        let claims = usual.to_string().replace(&format!(r#""exp":{exp}"#), &format!(r#""exp":{number}"#));
        let refused = verifier.verify(with_claims(&claims).as_bytes()).unwrap_err();
        assert!(matches!(refused, Error::Claim("exp") | Error::Malformed), "{number}");
    }
}

#[test]
fn exp_has_no_leeway_and_the_future_has_sixty_seconds() {
    let start = Timestamp::from_secs(1_700_000_000);
    let clock = Clock::manual(start);
    let verifier = Verifier::new(fixture::ring(), &section(ALG), clock.clone());
    let mut claims = fixture::claims(start);
    claims["exp"] = json!(start.secs() + 10);
    let token = with_claims(&claims.to_string());
    clock.advance(std::time::Duration::from_millis(9_999));
    assert!(verifier.verify(token.as_bytes()).is_ok());
    clock.advance(std::time::Duration::from_millis(1));
    assert_eq!(verifier.verify(token.as_bytes()), Err(Error::Expired));

    clock.set_back(std::time::Duration::from_secs(10));
    for claim in ["iat", "nbf", "auth_time"] {
        let mut claims = fixture::claims(start);
        claims[claim] = json!(start.secs() + 60);
        assert!(verifier.verify(with_claims(&claims.to_string()).as_bytes()).is_ok(), "{claim}");
        claims[claim] = json!(start.secs() + 61);
        assert_eq!(verifier.verify(with_claims(&claims.to_string()).as_bytes()), Err(Error::Claim(claim)));
    }
}

#[test]
fn expired_is_said_only_of_a_token_that_was_good() {
    let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
    let verifier = Verifier::new(fixture::ring(), &section(ALG), clock.clone());
    let mut claims = fixture::claims(clock.now());
    claims["openid"] = json!("a,b");
    clock.advance(std::time::Duration::from_secs(49 * 3600));
    assert_eq!(verifier.verify(with_claims(&claims.to_string()).as_bytes()), Err(Error::Claim("openid")));
}

#[test]
fn a_refresh_token_is_not_an_access_token() {
    let dir = tempfile::tempdir().unwrap();
    let secret = crate::token::refresh::RefreshSecret::open(dir.path()).unwrap();
    let token = secret.first(&SessionId::parse("s1").unwrap()).expose();
    assert_eq!(verifier().verify(token.expose().as_bytes()), Err(Error::Malformed));
}

#[test]
fn a_token_of_a_key_outside_the_ring_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let stranger = KeyRing::open(dir.path(), Algorithm::Es256, &Clock::system()).unwrap();
    let minter = Minter::new(Arc::new(stranger), &section(Algorithm::Es256), Clock::system());
    let minted = minter.mint(&fixture::grant(now())).unwrap();
    assert_eq!(verifier().verify(minted.token.expose().as_bytes()), Err(Error::UnknownKey));
}
