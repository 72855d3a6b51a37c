//! WeChat's table of errors: what a number means and what it asks of us.
//!
//! WeChat signals an error by a non-zero `errcode` in a JSON object, nearly always under HTTP 200. The free text beside
//! it (`errmsg`) is read for its trace id alone and dropped: it may quote what was sent. Which problem a client gets is
//! not decided here.
//!
//! Sources: official pages "Mini program login credential check (code2Session)", "Get interface call credential", "Get
//! stable interface call credential", "Check login state (checkSessionKey)", "Server API troubleshooting".

use std::fmt;

use serde_json::Value;

use super::Error;

/// Longest trace id that is kept, in bytes; today's have 26.
const MAX_RID: usize = 64;

/// An error that WeChat named by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errcode {
    /// WeChat's number, never 0.
    pub code: i64,
    /// What it asks of us.
    pub meaning: Meaning,
    /// The trace id that WeChat's support asks for. For the log.
    pub rid: Option<String>,
}

impl Errcode {
    /// The error of that number; `errmsg` is searched for the trace id.
    pub fn new(code: i64, errmsg: &str) -> Self {
        Self { code, meaning: Meaning::of(code), rid: find_rid(errmsg) }
    }

    /// Reads `errcode` and `errmsg` of an answer: absent, `null` or 0 is success and gives `None`, whatever else the answer
    /// holds. The number may also stand in a string: one official example prints it so.
    ///
    /// # Errors
    /// [`Error::Answer`] when `errcode` is there and is no whole number.
    pub fn read(answer: &serde_json::Map<String, Value>) -> Result<Option<Self>, Error> {
        let code = match answer.get("errcode") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
        };
        match code {
            None => Err(Error::Answer("errcode is not a whole number")),
            Some(0) => Ok(None),
            Some(code) => {
                let errmsg = answer.get("errmsg").and_then(Value::as_str).unwrap_or_default();
                Ok(Some(Self::new(code, errmsg)))
            }
        }
    }
}

/// `errcode 40029, rid 6…`, for the log.
impl fmt::Display for Errcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errcode {}", self.code)?;
        match &self.rid {
            Some(rid) => write!(f, ", rid {rid}"),
            None => Ok(()),
        }
    }
}

/// One variant for each thing that somebody acts on differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Meaning {
    /// -1: WeChat is busy; the user may start again with a new code.
    Busy,
    /// 40029, 42003: the code is expired, of another app, or mangled.
    BadCode,
    /// 40163: the code was used before.
    UsedCode,
    /// 40226: WeChat classes the user as high risk; trying again is pointless.
    Blocked,
    /// 45011: the limit of this minute is reached.
    RateLimited,
    /// 45009, 48006: the quota of the day or month is used up. Calls for an alarm.
    QuotaExceeded,
    /// 50001, 50002: the user or the account is restricted.
    Restricted,
    /// The account's settings and our configuration do not fit. Calls for an alarm; only the admin can mend it.
    Configuration(Configuration),
    /// We sent something that we never should: a parameter missing, the wrong method, a body that cannot be parsed.
    OurFault,
    /// 40001, 40014, 42001: the access token is bad, old or expired: fetch one, repeat once, never loop. (As the answer
    /// of the token call itself, 40001 means a wrong AppSecret.)
    AccessToken,
    /// 87007, 87009: the signature does not fit the user's present session_key. A stale key and a wrong computation look
    /// the same.
    SignatureInvalid,
    /// A number that is not in this table.
    Other,
}

/// Which setting does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Configuration {
    /// 40013, 41002: the AppID is unknown or missing. (For a phone code: the code is of another app.)
    AppId,
    /// 40125, 41004: the AppSecret is wrong, was reset, or is missing.
    AppSecret,
    /// 40243: the AppSecret is frozen in WeChat's console.
    FrozenSecret,
    /// 40164, 61004: our address is not on the account's IP white list; 89501, 89503, 89506, 89507: it waits for the
    /// administrator's consent or was refused it.
    Address,
    /// 48001, 61003: the account lacks the right to this call.
    Permission,
}

impl Meaning {
    /// The meaning of WeChat's number `code`.
    pub const fn of(code: i64) -> Self {
        match code {
            -1 => Self::Busy,
            40029 | 42003 => Self::BadCode,
            40163 => Self::UsedCode,
            40226 => Self::Blocked,
            45011 => Self::RateLimited,
            45009 | 48006 => Self::QuotaExceeded,
            50001 | 50002 => Self::Restricted,
            40013 | 41002 => Self::Configuration(Configuration::AppId),
            40125 | 41004 => Self::Configuration(Configuration::AppSecret),
            40243 => Self::Configuration(Configuration::FrozenSecret),
            40164 | 61004 | 89501 | 89503 | 89506 | 89507 => Self::Configuration(Configuration::Address),
            48001 | 61003 => Self::Configuration(Configuration::Permission),
            40002 | 41001 | 41008 | 43002 | 43003 | 44002 | 47001 | 87008 => Self::OurFault,
            40001 | 40014 | 42001 => Self::AccessToken,
            87007 | 87009 => Self::SignatureInvalid,
            _ => Self::Other,
        }
    }
}

/// The trace id: `… rid: 6…` today, `… req_id: …` formerly. Only letters, digits, `-` and `_` are kept, so that what WeChat
/// sends cannot break a log line.
fn find_rid(errmsg: &str) -> Option<String> {
    let (_, after) = errmsg.rsplit_once("rid:").or_else(|| errmsg.rsplit_once("req_id:"))?;
    let rid: String = after
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .take(MAX_RID)
        .collect();
    (!rid.is_empty()).then_some(rid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Option<Errcode>, Error> {
        Errcode::read(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn every_documented_number_has_its_meaning() {
        use Configuration as C;
        use Meaning as M;
        let table = [
            (-1, M::Busy),
            (40001, M::AccessToken),
            (40002, M::OurFault),
            (40013, M::Configuration(C::AppId)),
            (40014, M::AccessToken),
            (40029, M::BadCode),
            (40125, M::Configuration(C::AppSecret)),
            (40163, M::UsedCode),
            (40164, M::Configuration(C::Address)),
            (40226, M::Blocked),
            (40243, M::Configuration(C::FrozenSecret)),
            (41001, M::OurFault),
            (41002, M::Configuration(C::AppId)),
            (41004, M::Configuration(C::AppSecret)),
            (41008, M::OurFault),
            (42001, M::AccessToken),
            (43002, M::OurFault),
            (43003, M::OurFault),
            (44002, M::OurFault),
            (45009, M::QuotaExceeded),
            (45011, M::RateLimited),
            (47001, M::OurFault),
            (48001, M::Configuration(C::Permission)),
            (48006, M::QuotaExceeded),
            (50001, M::Restricted),
            (50002, M::Restricted),
            (61003, M::Configuration(C::Permission)),
            (61004, M::Configuration(C::Address)),
            (87007, M::SignatureInvalid),
            (87008, M::OurFault),
            (87009, M::SignatureInvalid),
            (89501, M::Configuration(C::Address)),
            (89503, M::Configuration(C::Address)),
            (89506, M::Configuration(C::Address)),
            (89507, M::Configuration(C::Address)),
            (12345, M::Other),
        ];
        for (code, meaning) in table {
            assert_eq!(Meaning::of(code), meaning, "{code}");
        }
    }

    #[test]
    fn errcode_absent_null_or_zero_is_success() {
        for ok in ["{}", r#"{"errcode":null}"#, r#"{"errcode":0,"errmsg":"ok"}"#, r#"{"errcode":"0"}"#] {
            assert_eq!(read(ok).unwrap(), None, "{ok}");
        }
    }

    #[test]
    fn errcode_may_be_a_number_or_a_string() {
        for answer in [r#"{"errcode":40029}"#, r#"{"errcode":"40029"}"#, r#"{"openid":"o1","errcode":40029}"#] {
            assert_eq!(read(answer).unwrap().unwrap().meaning, Meaning::BadCode, "{answer}");
        }
        assert_eq!(read(r#"{"errcode":"-1"}"#).unwrap().unwrap().meaning, Meaning::Busy);
    }

    #[test]
    fn an_errcode_that_is_no_whole_number_makes_the_answer_unusable() {
        for bad in [r#"{"errcode":"x"}"#, r#"{"errcode":1.5}"#, r#"{"errcode":true}"#, r#"{"errcode":[]}"#] {
            assert!(matches!(read(bad), Err(Error::Answer(_))), "{bad}");
        }
    }

    #[test]
    fn the_trace_id_is_kept_and_the_rest_of_errmsg_is_not() {
        let cases = [
            ("invalid code, rid: 6580a1b2-1c2d3e4f-5a6b7c8d", Some("6580a1b2-1c2d3e4f-5a6b7c8d")),
            ("invalid code, hints: [ req_id: aB3_x-9 ]", Some("aB3_x-9")),
            ("rid: abc\r\nlevel=ERROR forged", Some("abc")),
            ("rid: \u{1b}[31m", None),
            ("ok", None),
            ("", None),
        ];
        for (errmsg, rid) in cases {
            assert_eq!(Errcode::new(40029, errmsg).rid.as_deref(), rid, "{errmsg:?}");
        }
        assert_eq!(Errcode::new(1, &format!("rid: {}", "a".repeat(500))).rid.unwrap().len(), MAX_RID);
        assert_eq!(Errcode::new(40029, "code 0aSECRET rid: 6f-1").to_string(), "errcode 40029, rid 6f-1");
    }
}
