//! The scalars of `gateway.toml`: text in, a type that cannot be wrong out, or what to write instead.
//!
//! Paths and hosts are in [`super::pattern`], addresses of servers in [`super::url`].

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {write}")]
pub struct Wrong {
    /// What is wrong with it; never quotes it.
    pub what: String,
    /// What to write instead.
    pub write: String,
    /// Whether the fault may quote what stands in the file; not where a password may be part of it.
    pub quote: bool,
}

impl Wrong {
    /// A refusal that may quote the value.
    pub fn new(what: impl Into<String>, write: impl Into<String>) -> Self {
        Self { what: what.into(), write: write.into(), quote: true }
    }

    /// A refusal that may not, because people put passwords there.
    pub fn silent(what: impl Into<String>, write: impl Into<String>) -> Self {
        Self { what: what.into(), write: write.into(), quote: false }
    }
}

/// Longer than this is a slip of the pen, not a plan.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

const DURATION: &str = r#"write a number and a unit, such as "500ms", "30s", "2h" or "30d""#;

/// A duration of at most ten years, which may be zero.
///
/// # Errors
/// When it is no duration, or above ten years.
pub fn duration_or_zero(text: &str) -> Result<Duration, Wrong> {
    let value = humantime::parse_duration(text).map_err(|_| Wrong::new("is not a duration", DURATION))?;
    if value > LONGEST {
        return Err(Wrong::new("is longer than ten years", "write a shorter one"));
    }
    Ok(value)
}

/// A duration above zero.
///
/// # Errors
/// As [`duration_or_zero`], and for zero.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err(Wrong::new("is zero, which leaves no time at all", DURATION)),
        value => Ok(value),
    }
}

/// A life of something whose end is written down in whole seconds (RFC 7519, `NumericDate`): one second and more.
///
/// # Errors
/// As [`duration`], and for fractions of a second.
pub fn lifetime(text: &str) -> Result<Duration, Wrong> {
    let value = duration(text)?;
    if value.subsec_nanos() != 0 {
        return Err(Wrong::new("has a fraction of a second", "write whole seconds, because tokens count in them"));
    }
    Ok(value)
}

/// A size in bytes: `1MiB`, `10KiB`, `512B`, `1024`.
///
/// # Errors
/// When it is no size, or does not fit 64 bits.
pub fn size(text: &str) -> Result<u64, Wrong> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(not_a_size()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(not_a_size)
}

fn not_a_size() -> Wrong {
    Wrong::new("is not a size", r#"write a number and one of B, KiB, MiB, GiB, such as "512B", "32KiB" or "1MiB""#)
}

/// So many per so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least one.
    pub count: NonZeroU32,
    /// Per how long.
    pub per: Duration,
}

/// A rate: `20/s`, `100/min`, `5/h`.
///
/// # Errors
/// When it is no rate, or zero.
pub fn rate(text: &str) -> Result<Rate, Wrong> {
    let wrong = || Wrong::new("is not a rate", r#"write a number above zero per "s", "min" or "h", such as "20/s""#);
    let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
    let seconds = match unit.trim() {
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let count = count.trim().parse().map_err(|_| wrong())?;
    Ok(Rate { count, per: Duration::from_secs(seconds) })
}

/// An address to listen on. Port 0 lets the system choose.
///
/// # Errors
/// When it is not `IP:PORT`.
pub fn listen(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        Wrong::new("is not an address", r#"write IP:PORT, such as "0.0.0.0:8080", "127.0.0.1:8080" or "[::]:8080""#)
    })
}

/// A network of trusted proxies; a bare address means that host alone.
///
/// # Errors
/// When it is no network, has bits behind its prefix, or is the whole Internet: then any client could write its own
/// address.
pub fn trusted_proxy(text: &str) -> Result<IpNet, Wrong> {
    network(text, "trusts everybody, so any client could choose its own address", "write the networks of your proxies")
}

/// A network whose addresses prove a service.
///
/// # Errors
/// As [`trusted_proxy`].
pub fn service_network(text: &str) -> Result<IpNet, Wrong> {
    network(text, "lets everybody in", "write the networks of the service, or give it a token")
}

/// A network whose clients may, or may not, use a route.
///
/// # Errors
/// As [`trusted_proxy`].
pub fn client_network(text: &str) -> Result<IpNet, Wrong> {
    network(text, "is everybody", "write the networks that are meant, or remove the list")
}

/// A network in CIDR notation; why the whole Internet will not do, and what to write then.
fn network(text: &str, everybody: &str, write: &str) -> Result<IpNet, Wrong> {
    let net = match text.parse::<IpAddr>() {
        Ok(host) => IpNet::from(host),
        Err(_) => text.parse::<IpNet>().map_err(|_| {
            Wrong::new("is not a network", r#"write CIDR notation, such as "10.0.0.0/8" or "fd00::/8""#)
        })?,
    };
    if net.prefix_len() == 0 {
        return Err(Wrong::new(everybody, write));
    }
    if net != net.trunc() {
        return Err(Wrong::new("has bits behind its prefix", format!("write \"{}\"", net.trunc())));
    }
    Ok(net)
}

/// A request method.
///
/// # Errors
/// When it is no upper-case token, or one that the gateway never forwards (CONNECT, TRACE).
pub fn method(text: &str) -> Result<Method, Wrong> {
    if matches!(text, "CONNECT" | "TRACE") {
        return Err(Wrong::new("is never forwarded", "remove it"));
    }
    let wrong = || Wrong::new("is not a method", r#"write it in upper case, such as "GET""#);
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        return Err(wrong());
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| wrong())
}

/// The name of a protocol that a connection may be upgraded to (RFC 9110, section 7.8), in lower case.
///
/// # Errors
/// When it is not a token, or is one that would take requests past the gateway: another HTTP, or TLS.
pub fn protocol(text: &str) -> Result<String, Wrong> {
    let name = text.to_ascii_lowercase();
    let base = name.split('/').next().unwrap_or_default();
    if matches!(base, "h2c" | "h2" | "h3" | "http" | "tls") {
        return Err(Wrong::new("would carry requests that the gateway does not see", "remove it"));
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._/+".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
        return Err(Wrong::new("is not the name of a protocol", "write a name such as \"websocket\""));
    }
    Ok(name)
}

/// The name of an upstream or a role: it stands in headers, lists and metrics.
///
/// # Errors
/// When it is empty, longer than 64 bytes, or has other characters than letters, digits, `.`, `_`, `-` and `:`.
pub fn name(text: &str) -> Result<String, Wrong> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(fits) {
        return Err(Wrong::new(
            "is not a name",
            r#"write 1 to 64 of the letters A-Z and a-z, digits, ".", "_", "-" and ":""#,
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_a_unit() {
        for (text, millis) in [("30s", 30_000), ("500ms", 500), ("2h", 7_200_000), ("30d", 2_592_000_000)] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for bad in ["", "30", "30x", "-1s", "s", "11years", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zero_is_refused_where_it_leaves_no_time() {
        assert!(duration("0s").is_err());
        assert!(lifetime("0s").is_err());
        assert!(lifetime("1500ms").is_err());
        assert_eq!(duration_or_zero("0s").unwrap(), Duration::ZERO);
    }

    #[test]
    fn sizes_are_binary_and_exact() {
        for (text, bytes) in [("1MiB", 1 << 20), ("10KiB", 10_240), ("512B", 512), ("77", 77), ("1 GiB", 1 << 30)] {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "MiB", "1MB", "1kb", "1.5MiB", "-1", "+1", "99999999999999999999", "18446744073709551615KiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_a_count_per_unit() {
        assert_eq!(rate("20/s").unwrap(), Rate { count: NonZeroU32::new(20).unwrap(), per: Duration::from_secs(1) });
        assert_eq!(rate("100/min").unwrap().per, Duration::from_secs(60));
        for bad in ["", "20", "0/s", "-1/s", "20/", "20/day", "/s"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_proxy_list_never_trusts_everybody() {
        assert_eq!(trusted_proxy("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(trusted_proxy("::1").unwrap().to_string(), "::1/128");
        for bad in ["0.0.0.0/0", "::/0", "10.0.0.1/8", "10.0.0.0/33", "proxy.internal", ""] {
            assert!(trusted_proxy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn another_http_is_no_protocol_to_upgrade_to() {
        assert_eq!(protocol("WebSocket").unwrap(), "websocket");
        assert_eq!(protocol("mqtt/5").unwrap(), "mqtt/5");
        for bad in ["", "h2c", "H2C", "HTTP/2.0", "tls/1.2", "a b", "a,b", "é"] {
            assert!(protocol(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn methods_are_upper_case_and_forwardable() {
        assert_eq!(method("GET").unwrap(), Method::GET);
        assert_eq!(method("PURGE").unwrap().as_str(), "PURGE");
        for bad in ["", "get", "GET ", "CONNECT", "TRACE", "G,T"] {
            assert!(method(bad).is_err(), "{bad}");
        }
    }
}
