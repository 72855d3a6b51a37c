//! Why a route takes a request, or does not: for people.
//!
//! Each route is put into a table of its own, so that the answer is that of [`Matcher`] and of
//! nothing else.

use http::Method;

use crate::config::Route;

use super::matcher::{Found, Matcher};

/// What a route has to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Host, path and method fit.
    Matches,
    /// All but the method.
    OtherMethod,
    /// All but the host.
    OtherHost,
    /// The path does not fit.
    OtherPath,
}

impl Fit {
    /// Of this route and a request for a lower-case host without port, and a canonical path.
    pub fn of(route: &Route, host: &str, path: &str, method: &Method) -> Self {
        let mut alone = Matcher::default();
        alone.insert(&route.hosts, &route.path, &route.methods, &());
        match alone.find(host, path, method) {
            Found::Match(()) => return Self::Matches,
            Found::Method(_) => return Self::OtherMethod,
            Found::Nothing => {}
        }
        let mut anywhere = Matcher::default();
        anywhere.insert(&[], &route.path, &[], &());
        match anywhere.find(host, path, method) {
            Found::Match(()) => Self::OtherHost,
            Found::Method(_) | Found::Nothing => Self::OtherPath,
        }
    }
}
