//! What a stopwatch could learn from decryption that fails (threats: a padding oracle). All cases are of one ciphertext
//! length and under one key; those of a forger, who has no key, differ in one byte. Compare the medians of one run.
#![allow(clippy::unwrap_used, missing_docs)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use divan::{Bencher, black_box};
use wxgate::clock::Timestamp;
use wxgate::ids::{AppId, OpenId};
use wxgate::wechat::open_data::{Encrypted, Owner, encrypt};
use wxgate::wechat::session_key::SessionKey;

const NOW: i64 = 1_750_000_000;
const IV: [u8; 16] = [7; 16];

fn main() {
    divan::main();
}

fn key(byte: u8) -> SessionKey {
    SessionKey::parse(&STANDARD.encode([byte; 16])).unwrap()
}

/// A profile as WeChat encrypts it, with this appid in the watermark.
fn profile(appid: &str) -> String {
    let avatar = "https://thirdwx.qlogo.cn/mmopen/vi_32/POgEwh4mIHO4nibH0KlMECNjjGxQUq24ZEaGT4poC6icRiccVGKSyXwibcPq4BWmiaIGuG1icwxaQX6grC9VemZoJ8rg/132";
    format!(
        r#"{{"openId":"oPerson","nickName":"alice","gender":0,"language":"","city":"Guangzhou","province":"","country":"","avatarUrl":"{avatar}","watermark":{{"timestamp":{NOW},"appid":"{appid}"}}}}"#
    )
}

/// How the data fails, if it does.
#[derive(Debug, Clone, Copy)]
enum Case {
    Good,
    AnotherKey,
    /// The block before the last is changed in its last byte: the padding is wrong.
    ForgedPaddingWrong,
    /// The same byte, changed so that the padding becomes right by chance: what a padding oracle would tell.
    ForgedPaddingRight,
    NoJson,
    AnotherApp,
}

fn data(case: Case) -> Encrypted {
    let good = profile("wxapp");
    let text = match case {
        Case::NoJson => good.replace("\"openId\":", "\"openId\" "),
        Case::AnotherApp => profile("wxabc"),
        _ => good,
    };
    let made_with = if matches!(case, Case::AnotherKey) { key(2) } else { key(1) };
    let mut bytes = STANDARD.decode(encrypt(&made_with, &text, &IV)).unwrap();
    let at = bytes.len() - 17;
    let pad = u8::try_from(16 - text.len() % 16).unwrap();
    match case {
        Case::ForgedPaddingWrong => bytes[at] ^= pad ^ 0x40,
        // A last byte of 1 is padding whatever stands before it.
        Case::ForgedPaddingRight => bytes[at] ^= pad ^ 1,
        _ => {}
    }
    Encrypted::parse(&STANDARD.encode(bytes), &STANDARD.encode(IV)).unwrap()
}

#[divan::bench(args = [Case::Good, Case::AnotherKey, Case::ForgedPaddingWrong, Case::ForgedPaddingRight, Case::NoJson, Case::AnotherApp])]
fn open(bencher: Bencher<'_, '_>, case: Case) {
    let (appid, openid) = (AppId::parse("wxapp").unwrap(), OpenId::parse("oPerson").unwrap());
    let (encrypted, key) = (data(case), key(1));
    let open = || {
        let owner = Owner { appid: &appid, openid: &openid };
        black_box(&encrypted).open(&key, &owner, Timestamp::from_secs(NOW)).is_ok()
    };
    assert_eq!(open(), matches!(case, Case::Good), "{case:?}");
    bencher.bench(open);
}
