//! What a route does to a request and its answer on the way, checked.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;

/// `headers` of a `[[route]]`: never of identity, framing, one hop or forwarding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    /// Of the request, as the upstream gets it.
    pub request: HeaderRules,
    /// Of the upstream's answer, as the client gets it.
    pub response: HeaderRules,
}

/// What is done to headers: first removed, then set, then added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderRules {
    /// Removed, every line.
    pub remove: Vec<HeaderName>,
    /// In place of what is there. Values are marked sensitive: some are keys of upstreams.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Beside what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderRules {
    /// Whether they do nothing.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// `rewrite` of a `[[route]]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// The path that is forwarded; `None` is the one that came.
    pub path: Option<PathTemplate>,
    /// `Host` as the upstream gets it; `None` is the one that came.
    pub host: Option<HeaderValue>,
}

/// A path made of another that a route matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    /// As written.
    pub text: String,
    /// Its segments.
    pub pieces: Vec<Piece>,
    /// Ends in `/*`: goes on as the path that came went on behind the route's `/*`.
    pub rest: bool,
    /// Ends in `/`.
    pub slash: bool,
}

/// A segment of a [`PathTemplate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// This text, in canonical form.
    Literal(String),
    /// That segment of the path that came, counted from 0.
    Segment(usize),
}

/// `redirect` of a `[[route]]`: the answer, instead of an upstream's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// `scheme://host[:port]`, empty for this very host. Nothing of a request is ever in it.
    pub origin: String,
    /// The path there; the query of the request is kept.
    pub path: PathTemplate,
}

/// `compress` of a `[[route]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compress {
    /// Smallest answer that is compressed, bytes; one of unknown length is.
    pub min_size: u64,
    /// `gzip` may be used.
    pub gzip: bool,
    /// `br` may be used.
    pub br: bool,
    /// `zstd` may be used.
    pub zstd: bool,
}

/// `allow` and `deny` of a `[[route]]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks {
    /// Who may use it; empty is everybody.
    pub allow: Vec<IpNet>,
    /// Who may not, whatever `allow` says.
    pub deny: Vec<IpNet>,
}

impl Networks {
    /// Whether they say anything.
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Whether a client of this address may use the route.
    pub fn admit(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&client));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}

/// `[[error_page]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    /// Statuses that it is for; empty is every one without a page of its own.
    pub status: Vec<u16>,
    /// The HTML, in pieces.
    pub parts: Vec<PagePart>,
}

/// A piece of an [`ErrorPage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PagePart {
    /// As it stands in the file.
    Text(String),
    /// `{{status}}`: the number.
    Status,
    /// `{{title}}`: the title of the problem.
    Title,
    /// `{{request_id}}`: the id under which the log has it.
    RequestId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_wins_and_an_empty_allow_is_everybody() {
        let networks = |allow: &[&str], deny: &[&str]| {
            let read = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
            Networks { allow: read(allow), deny: read(deny) }
        };
        for (allow, deny, client, admitted) in [
            (&[][..], &[][..], "192.0.2.1", true),
            (&["10.0.0.0/8"], &[], "10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "::ffff:10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "192.0.2.1", false),
            (&["10.0.0.0/8"], &[], "fd00::1", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.2.2.3", true),
            (&[], &["fd00::/8"], "fd00::1", false),
            (&[], &["fd00::/8"], "192.0.2.1", true),
            (&[], &["192.0.2.0/24"], "::ffff:192.0.2.7", false),
        ] {
            let admit = networks(allow, deny).admit(client.parse().unwrap());
            assert_eq!(admit, admitted, "{client} of {allow:?} without {deny:?}");
        }
    }
}
