//! Which of many patterns fits a request best.
//!
//! A route matches when host, path and method all match; of those that match, the most specific wins, whatever the order
//! in the file: first the host (exact, then the longest suffix, then any), then the path (segment by segment from the
//! left: literal, then `{segment}`, then `/*`), then the method (listed, then any). The table is a tree of segments, so
//! the cost grows with the length of the path and not with the number of routes.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use http::Method;
use smallvec::SmallVec;

use crate::config::{HostPattern, PathPattern, Segment};

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a, T> {
    /// The best match.
    Match(&'a T),
    /// Paths match, but for other methods: these.
    Method(Vec<Method>),
    /// Nothing matches.
    Nothing,
}

/// Patterns and what they stand for.
#[derive(Debug)]
pub struct Matcher<T> {
    exact: HashMap<Box<str>, Node<T>, RandomState>,
    /// Longest suffix first.
    suffixes: Vec<(Box<str>, Node<T>)>,
    any: Node<T>,
}

#[derive(Debug)]
struct Node<T> {
    literals: HashMap<Box<str>, Node<T>, RandomState>,
    segment: Option<Box<Node<T>>>,
    /// Routes that end here, and those that end here with a slash.
    here: Leaf<T>,
    slash: Leaf<T>,
    /// Routes that take the rest.
    rest: Leaf<T>,
}

/// Routes of one pattern: by methods, those that list methods first.
#[derive(Debug)]
struct Leaf<T>(Vec<(Vec<Method>, T)>);

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            literals: HashMap::default(),
            segment: None,
            here: Leaf(Vec::new()),
            slash: Leaf(Vec::new()),
            rest: Leaf(Vec::new()),
        }
    }
}

impl<T> Default for Matcher<T> {
    fn default() -> Self {
        Self { exact: HashMap::default(), suffixes: Vec::new(), any: Node::default() }
    }
}

impl<T: Clone> Matcher<T> {
    /// Adds a pattern. No hosts means any, no methods means any.
    pub fn insert(&mut self, hosts: &[HostPattern], path: &PathPattern, methods: &[Method], value: &T) {
        if hosts.is_empty() {
            self.any.insert(path, methods, value);
        }
        for host in hosts {
            match host {
                HostPattern::Exact(host) => {
                    self.exact.entry(host.as_str().into()).or_default().insert(path, methods, value);
                }
                HostPattern::Suffix(suffix) => {
                    let at = match self.suffixes.iter().position(|(s, _)| **s == **suffix) {
                        Some(at) => at,
                        None => {
                            let at = self.suffixes.partition_point(|(s, _)| s.len() >= suffix.len());
                            self.suffixes.insert(at, (suffix.as_str().into(), Node::default()));
                            at
                        }
                    };
                    self.suffixes[at].1.insert(path, methods, value);
                }
            }
        }
    }
}

impl<T> Matcher<T> {
    /// Whether any pattern is for certain hosts; where none is, it does not matter which is asked for.
    pub fn knows_hosts(&self) -> bool {
        !self.exact.is_empty() || !self.suffixes.is_empty()
    }

    /// The best match for a lower-case host without port, a canonical path and a method.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Found<'_, T> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let mut allowed = SmallVec::new();
        let hosts = (!self.exact.is_empty())
            .then(|| self.exact.get(host))
            .flatten()
            .into_iter()
            .chain(self.suffixes.iter().filter(|(s, _)| host.len() > s.len() && host.ends_with(&**s)).map(|(_, n)| n))
            .chain(std::iter::once(&self.any));
        for node in hosts {
            if let Some(found) = node.find(path, method, &mut allowed) {
                return Found::Match(found);
            }
        }
        if allowed.is_empty() {
            return Found::Nothing;
        }
        let mut methods: Vec<Method> = allowed.into_iter().cloned().collect();
        methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        methods.dedup();
        Found::Method(methods)
    }
}

/// Methods of routes whose path matches; nothing is allocated while there are few.
type Allowed<'a> = SmallVec<[&'a Method; 8]>;

impl<T: Clone> Node<T> {
    fn insert(&mut self, path: &PathPattern, methods: &[Method], value: &T) {
        let mut node = self;
        for segment in &path.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.as_str().into()).or_default(),
                Segment::Any => node.segment.get_or_insert_default(),
            };
        }
        let leaf = if path.rest {
            &mut node.rest
        } else if path.slash || path.segments.is_empty() {
            // The root path is its own slash: after the leading one is taken off, nothing is left of it.
            &mut node.slash
        } else {
            &mut node.here
        };
        let at = if methods.is_empty() { leaf.0.len() } else { 0 };
        leaf.0.insert(at, (methods.to_vec(), value.clone()));
    }
}

impl<T> Node<T> {
    /// `path` is what is left of the path, without the slash before it; empty after a trailing slash.
    fn find<'a>(&'a self, path: &str, method: &Method, allowed: &mut Allowed<'a>) -> Option<&'a T> {
        if path.is_empty() {
            return self.slash.find(method, allowed).or_else(|| self.rest.find(method, allowed));
        }
        let (segment, below) = match path.split_once('/') {
            Some((segment, below)) => (segment, Some(below)),
            None => (path, None),
        };
        if let Some(node) = self.literals.get(segment)
            && let Some(found) = node.go_on(below, method, allowed)
        {
            return Some(found);
        }
        if let Some(node) = &self.segment
            && let Some(found) = node.go_on(below, method, allowed)
        {
            return Some(found);
        }
        self.rest.find(method, allowed)
    }

    fn go_on<'a>(&'a self, below: Option<&str>, method: &Method, allowed: &mut Allowed<'a>) -> Option<&'a T> {
        match below {
            Some(below) => self.find(below, method, allowed),
            None => self.here.find(method, allowed).or_else(|| self.rest.find(method, allowed)),
        }
    }
}

impl<T> Leaf<T> {
    fn find<'a>(&'a self, method: &Method, allowed: &mut Allowed<'a>) -> Option<&'a T> {
        for (methods, value) in &self.0 {
            if methods.is_empty() || methods.contains(method) {
                return Some(value);
            }
            allowed.extend(methods);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> PathPattern {
        let (path, rest) = match text.strip_suffix("/*") {
            Some(path) => (path, true),
            None => (text, false),
        };
        let slash = !rest && path.len() > 1 && path.ends_with('/');
        let segments = path
            .split('/')
            .filter(|s| !s.is_empty())
            .map(|s| if s.starts_with('{') { Segment::Any } else { Segment::Literal(s.to_owned()) })
            .collect();
        PathPattern { text: text.to_owned(), segments, rest, slash }
    }

    fn table(routes: &[(&str, &str, &[&str])]) -> Matcher<String> {
        let mut matcher = Matcher::default();
        for (n, (host, path, methods)) in routes.iter().enumerate() {
            let hosts: Vec<_> = match host.strip_prefix('*') {
                _ if host.is_empty() => Vec::new(),
                Some(suffix) => vec![HostPattern::Suffix(suffix.to_owned())],
                None => vec![HostPattern::Exact((*host).to_owned())],
            };
            let methods: Vec<Method> = methods.iter().map(|m| m.parse().unwrap()).collect();
            matcher.insert(&hosts, &pattern(path), &methods, &format!("{n}:{host}{path}"));
        }
        matcher
    }

    fn get(matcher: &Matcher<String>, host: &str, path: &str) -> String {
        match matcher.find(host, path, &Method::GET) {
            Found::Match(found) => found.split_once(':').unwrap().1.to_owned(),
            Found::Method(methods) => format!("{methods:?}"),
            Found::Nothing => "-".to_owned(),
        }
    }

    #[test]
    fn the_most_specific_path_wins_in_any_order() {
        let routes: [(&str, &str, &[&str]); 8] = [
            ("", "/*", &[]),
            ("", "/api/*", &[]),
            ("", "/api/orders", &[]),
            ("", "/api/{x}", &[]),
            ("", "/api/{x}/items", &[]),
            ("", "/api/orders/*", &[]),
            ("", "/", &[]),
            ("", "/dir/", &[]),
        ];
        let mut reversed = routes;
        reversed.reverse();
        for routes in [routes, reversed] {
            let m = table(&routes);
            for (path, expected) in [
                ("/", "/"),
                ("/x", "/*"),
                ("/api", "/api/*"),
                ("/api/", "/api/*"),
                ("/api/orders", "/api/orders"),
                ("/api/orders/", "/api/orders/*"),
                ("/api/orders/1", "/api/orders/*"),
                ("/api/other", "/api/{x}"),
                ("/api/other/items", "/api/{x}/items"),
                ("/api/other/else", "/api/*"),
                ("/api/orders/items", "/api/orders/*"),
                ("/apix", "/*"),
                ("/API/orders", "/*"),
                ("/dir/", "/dir/"),
                ("/dir", "/*"),
            ] {
                assert_eq!(get(&m, "", path), expected, "{path}");
            }
        }
    }

    #[test]
    fn a_segment_is_never_empty_and_a_star_takes_the_path_itself() {
        let m = table(&[("", "/a/{x}", &[]), ("", "/b/*", &[])]);
        for (path, expected) in [("/a/", "-"), ("/a", "-"), ("/a/1", "/a/{x}"), ("/b", "/b/*"), ("/", "-")] {
            assert_eq!(get(&m, "", path), expected, "{path}");
        }
    }

    #[test]
    fn the_host_comes_before_the_path() {
        let m = table(&[
            ("", "/a/b", &[]),
            ("a.example.com", "/*", &[]),
            ("*.example.com", "/*", &[]),
            ("*.b.example.com", "/*", &[]),
        ]);
        for (host, expected) in [
            ("a.example.com", "a.example.com/*"),
            ("c.example.com", "*.example.com/*"),
            ("x.b.example.com", "*.b.example.com/*"),
            ("example.com", "/a/b"),
            (".example.com", "/a/b"),
            ("evilexample.com", "/a/b"),
        ] {
            assert_eq!(get(&m, host, "/a/b"), expected, "{host}");
        }
    }

    #[test]
    fn another_method_falls_to_the_next_best_or_is_405() {
        let m =
            table(&[("", "/a", &["POST"]), ("", "/b", &["PUT", "POST"]), ("", "/a", &[]), ("", "/c/*", &["DELETE"])]);
        assert_eq!(get(&m, "", "/a"), "/a");
        assert!(matches!(m.find("", "/a", &Method::POST), Found::Match(v) if v.starts_with("0:")));
        assert_eq!(get(&m, "", "/b"), "[POST, PUT]");
        assert_eq!(get(&m, "", "/c/d"), "[DELETE]");
    }
}
