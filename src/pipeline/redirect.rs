//! A route that sends the client elsewhere.
//!
//! Scheme and host stand in the configuration, or are the ones that the client is talking to (a `Location` that is a path
//! alone); only segments of a canonical path go into the path there. So a link can never choose the site that people
//! land on.

use http::header::LOCATION;
use http::uri::PathAndQuery;
use http::{HeaderValue, Response};

use crate::body::Body;
use crate::config::{PathPattern, Redirect};
use crate::problem::{Code, Problem};

use super::rewrite::{fill, settled};

/// The answer to a request for `target`, which `pattern` has matched.
///
/// # Errors
/// `ambiguous_path`, when the path there would have two readings.
pub fn answer(redirect: &Redirect, pattern: &PathPattern, target: &PathAndQuery) -> Result<Response<Body>, Problem> {
    let path = fill(&redirect.path, pattern, target.path());
    settled(&path).map_err(|why| Problem::new(Code::AmbiguousPath, format!("The path {}.", why.0)))?;
    let mut location = format!("{}{path}", redirect.origin);
    if let Some(query) = target.query() {
        location.extend(["?", query]);
    }
    let location = HeaderValue::from_str(&location).map_err(Problem::internal)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = redirect.status;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}
