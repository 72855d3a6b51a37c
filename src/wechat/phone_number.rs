//! A phone number as WeChat tells it: by a code of the phone button, or inside open data (official page "Get phone number").
//!
//! The code of the button is not that of `wx.login`; it is single-use, so the call is never repeated once WeChat may have
//! taken it. WeChat is told whose the code must be, and refuses one of somebody else.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::access_token::AccessToken;
use super::{Client, Errcode, Error, Meaning};
use crate::ids::{AppId, OpenId};

const PATH: &str = "/wxa/business/getuserphonenumber";

/// Longest number that is taken, bytes; the longest there are have 15 digits.
const MAX_NUMBER: usize = 32;

/// Longest country code, digits.
const MAX_COUNTRY: usize = 8;

/// 40013 as the answer of this call: the code is of another app (its appid was not wrong: the access token named it).
const FOREIGN_CODE: i64 = 40013;

/// A phone number. Personal data: `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhoneNumber {
    /// With `+` and country code where it is foreign.
    pub phone_number: String,
    /// Without country code.
    pub pure_phone_number: String,
    /// Such as `86`.
    pub country_code: String,
}

impl PhoneNumber {
    /// Reads `phoneNumber`, `purePhoneNumber` and `countryCode`, which may be a number: the official example prints one
    /// where the page says string. `None` when one is missing or is nothing of the kind.
    pub fn read(info: &Map<String, Value>) -> Option<Self> {
        let number = |name: &str| {
            let text = info.get(name)?.as_str()?;
            let fits = |b: u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b' ' | b'(' | b')');
            let plausible = (1..=MAX_NUMBER).contains(&text.len()) && text.bytes().all(fits);
            plausible.then(|| text.to_owned())
        };
        let country_code = match info.get("countryCode")? {
            Value::String(text) => text.trim_start_matches('+').to_owned(),
            Value::Number(number) => number.as_u64()?.to_string(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
        };
        let country_fits =
            (1..=MAX_COUNTRY).contains(&country_code.len()) && country_code.bytes().all(|b| b.is_ascii_digit());
        let (phone_number, pure_phone_number) = (number("phoneNumber")?, number("purePhoneNumber")?);
        country_fits.then_some(Self { phone_number, pure_phone_number, country_code })
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneNumber(…)")
    }
}

impl Client {
    /// Exchanges a code of the phone button, which must be of `openid`. Never sent twice.
    ///
    /// # Errors
    /// All of [`Error`]; a code of another app has the meaning [`Meaning::BadCode`].
    pub async fn phone_number(
        &self,
        appid: &AppId,
        token: &AccessToken,
        code: &str,
        openid: &OpenId,
    ) -> Result<PhoneNumber, Error> {
        let query = [("access_token", token.expose())];
        let body = json!({"code": code, "openid": openid.as_str()});
        let call = async { read(&self.post_json(PATH, &query, &body).await?, appid) };
        self.guarded(appid, PATH, call).await.map_err(|error| match error {
            Error::Errcode(errcode) if errcode.code == FOREIGN_CODE => {
                Error::Errcode(Errcode { meaning: Meaning::BadCode, ..errcode })
            }
            other => other,
        })
    }
}

fn read(answer: &Map<String, Value>, appid: &AppId) -> Result<PhoneNumber, Error> {
    let info = answer.get("phone_info").and_then(Value::as_object).ok_or(Error::Answer("phone_info is missing"))?;
    let watermark = info.get("watermark").and_then(|watermark| watermark.get("appid"));
    if watermark.and_then(Value::as_str) != Some(appid.as_str()) {
        return Err(Error::Answer("phone_info is not of this app"));
    }
    PhoneNumber::read(info).ok_or(Error::Answer("phone_info holds no phone number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: &Value) -> Option<PhoneNumber> {
        PhoneNumber::read(value.as_object().unwrap())
    }

    #[test]
    fn a_country_code_may_be_a_number_or_a_text() {
        for country in [json!(86), json!("86"), json!("+86")] {
            let read = number(
                &json!({"phoneNumber": "13812345678", "purePhoneNumber": "13812345678", "countryCode": country}),
            );
            assert_eq!(read.unwrap().country_code, "86");
        }
    }

    #[test]
    fn what_is_no_phone_number_is_none() {
        let good = json!({"phoneNumber": "+1 415", "purePhoneNumber": "415", "countryCode": "1"});
        assert!(number(&good).is_some());
        for (name, bad) in [
            ("phoneNumber", json!(13812345678_u64)),
            ("phoneNumber", json!("")),
            ("phoneNumber", json!("1".repeat(33))),
            ("phoneNumber", json!("<script>")),
            ("purePhoneNumber", json!(null)),
            ("countryCode", json!(null)),
            ("countryCode", json!(-86)),
            ("countryCode", json!(8.6)),
            ("countryCode", json!("")),
            ("countryCode", json!("CN")),
        ] {
            let mut value = good.clone();
            value[name] = bad;
            assert_eq!(number(&value), None, "{value}");
        }
    }

    #[test]
    fn an_answer_of_another_app_is_not_believed() {
        let app = AppId::parse("wxa").unwrap();
        let answer = |watermark: Value| {
            let info =
                json!({"phoneNumber": "138", "purePhoneNumber": "138", "countryCode": 86, "watermark": watermark});
            read(json!({ "phone_info": info }).as_object().unwrap(), &app)
        };
        assert!(answer(json!({"appid": "wxa", "timestamp": 1})).is_ok());
        for bad in [json!({"appid": "wxb"}), json!({}), json!(null), json!("wxa")] {
            assert!(matches!(answer(bad), Err(Error::Answer(_))));
        }
    }

    #[test]
    fn debug_output_shows_no_digit() {
        let number = PhoneNumber {
            phone_number: "13812345678".into(),
            pure_phone_number: "13812345678".into(),
            country_code: "86".into(),
        };
        assert_eq!(format!("{number:?}"), "PhoneNumber(…)");
    }
}
