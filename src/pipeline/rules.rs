//! What a route's `headers` says, done: removed, then set, then added.
//!
//! The configuration's check has refused every rule about identity, framing, one hop or forwarding
//! (`config::protected`), so that the order of this step among the others cannot matter.

use http::HeaderMap;

use crate::config::HeaderRules;

/// Applies the rules.
pub fn apply(rules: &HeaderRules, headers: &mut HeaderMap) {
    for name in &rules.remove {
        headers.remove(name);
    }
    for (name, value) in &rules.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &rules.add {
        headers.append(name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::config::protected;
    use crate::pipeline::hygiene::clean;

    #[test]
    fn headers_are_removed_then_set_then_added() {
        let header =
            |name: &'static str, value: &'static str| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let rules = HeaderRules {
            remove: vec![HeaderName::from_static("a")],
            set: vec![header("b", "new")],
            add: vec![header("a", "added"), header("c", "2")],
        };
        let mut headers: HeaderMap =
            [header("a", "1"), header("b", "1"), header("c", "1"), header("d", "1")].into_iter().collect();
        headers.append("a", HeaderValue::from_static("2"));
        apply(&rules, &mut headers);
        let all = |name: &str| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("a"), all("b"), all("c"), all("d")), (vec!["added"], vec!["new"], vec!["1", "2"], vec!["1"]));
    }

    /// What the gateway removes from every request, and what it writes itself.
    fn is_the_gateways(name: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("x"));
        clean(&mut headers);
        headers.is_empty()
    }

    #[test]
    fn no_rule_touches_what_the_gateway_writes() {
        for name in [
            "x-wx-openid",
            "X_WX_OPENID",
            "X-WX-SOURCE",
            "x-wxgate-member",
            "x.wxgate.roles",
            "forwarded",
            "x-forwarded-for",
            "X-Forwarded-Anything",
            "via",
            "x-request-id",
            "traceparent",
            "connection",
            "transfer-encoding",
            "content-length",
            "te",
            "upgrade",
            "remote-user",
            "sec-websocket-key",
            "proxy-authorization",
            "x-original-forwarded-for",
        ] {
            assert!(protected::request(&name.parse().unwrap()).is_err(), "{name}");
        }
        for name in ["x-env", "accept", "user-agent", "cookie", "authorization", "x-api-key", "content-type", "origin"]
        {
            assert!(protected::request(&name.parse().unwrap()).is_ok(), "{name}");
        }
        for name in ["connection", "content-length", "Content_Encoding", "x-wxgate-token", "trailer", "keep-alive"] {
            assert!(protected::response(&name.parse().unwrap()).is_err(), "{name}");
        }
        for name in ["server", "strict-transport-security", "cache-control", "vary", "set-cookie"] {
            assert!(protected::response(&name.parse().unwrap()).is_ok(), "{name}");
        }
    }

    proptest! {
        /// The two lists agree: what hygiene removes, no rule may write.
        #[test]
        fn what_hygiene_removes_no_rule_may_write(
            name in "(x[-_.](wx|wxgate|forwarded|original|authenticated|remote|auth-request|ssl-client|envoy|real|client|http|request|rewrite)[-_.a-z]{0,9}|[a-z-]{1,12}|(remote|ssl-client|cf|true|proxy|client|te|trailer|via|expect)[-_.a-z]{0,9})"
        ) {
            if is_the_gateways(&name) {
                prop_assert!(protected::request(&name.parse().unwrap()).is_err(), "{}", name);
            }
        }
    }
}
