//! The text of what a route does to a request and its answer, key by key; a part of [`super::file`].

use schemars::JsonSchema;
use serde::Deserialize;

use super::file::Size;

/// Headers that a route removes, sets and adds.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Headers {
    /// Of the request, as the upstream gets it.
    pub request: Option<HeaderRules>,
    /// Of the upstream's answer, as the client gets it.
    pub response: Option<HeaderRules>,
}

/// First removed, then set, then added.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderRules {
    /// Names of headers to take out.
    #[schemars(example = ["X-Debug"])]
    pub remove: Option<Vec<String>>,
    /// "Name: value" in place of what is there.
    #[schemars(example = ["X-Env: production"])]
    pub set: Option<Vec<String>>,
    /// "Name: value" beside what is there.
    #[schemars(example = ["Link: </style.css>; rel=preload"])]
    pub add: Option<Vec<String>>,
}

/// What is forwarded in place of what came.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// The path: text, {segments} of the route's path, and a trailing /* for what its own /* took. Default: the one that came.
    #[schemars(example = &"/v2/orders/*")]
    pub path: Option<String>,
    /// The Host header. Default: the one that came.
    #[schemars(example = &"orders.internal")]
    pub host: Option<String>,
}

/// Where a client is sent instead of an upstream.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// A path, or a URL whose host is written out; with {segments} and a trailing /* of the route's path. Required.
    #[schemars(required, example = &"https://www.example.com/shop/*")]
    pub to: Option<String>,
    /// 301, 302, 303, 307 or 308. Default: 307.
    #[schemars(example = 307)]
    pub status: Option<i64>,
}

/// Whether and how answers are compressed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Compress {
    /// With the defaults, or not at all.
    Switch(bool),
    /// In this way.
    With(Compression),
}

/// How answers are compressed.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compression {
    /// Which codings may be used. Default: all three.
    #[schemars(length(min = 1), example = ["gzip"])]
    pub codings: Option<Vec<Coding>>,
    /// Smallest answer that is compressed. Default: "1KiB".
    pub min_size: Option<Size>,
}

/// A content coding (RFC 9110, section 8.4.1; RFC 7932; RFC 8878).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// gzip.
    Gzip,
    /// Brotli.
    Br,
    /// Zstandard.
    Zstd,
}

/// A page that browsers get in place of a problem.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorPage {
    /// The statuses that it is for, 400 to 599. Default: every one without a page of its own.
    #[schemars(inner(range(min = 400, max = 599)), example = [404])]
    pub status: Option<Vec<i64>>,
    /// File of the page: HTML, at most 64KiB. Required.
    #[schemars(required, example = &"pages/404.html")]
    pub file: Option<String>,
}

/// A small fixed answer, such as WeChat's domain proof file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Static {
    /// Exact path. Required.
    #[schemars(required, example = &"/MP_verify_abc.txt")]
    pub path: Option<String>,
    /// The body, text of at most 64KiB. This or `file` is required.
    #[schemars(example = &"abc")]
    pub body: Option<String>,
    /// File of the body, at most 1MiB.
    #[schemars(example = &"static/robots.txt")]
    pub file: Option<String>,
    /// Its media type. Default: "text/plain; charset=utf-8".
    #[schemars(example = &"application/json")]
    pub content_type: Option<String>,
}
