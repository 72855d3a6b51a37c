//! The path that is forwarded, made of the one that was matched and authorised.
//!
//! A template's `{segments}` and `/*` are filled with segments of the canonical path as they stand there, so that nothing
//! is decoded or encoded on the way. What comes out must be canonical again (contract, promise 2): it is by construction,
//! and it is checked all the same, because an upstream that reads it in another way would serve what nobody authorised.

use http::uri::PathAndQuery;

use crate::config::{self, PathPattern, PathTemplate, Piece};

use super::path::{Ambiguous, canonical, with_path};

/// The target that this route forwards for `target`, which it has matched; `None` when it is the same.
///
/// # Errors
/// When what comes out has more than one reading.
pub fn forwarded(route: &config::Route, target: &PathAndQuery) -> Result<Option<PathAndQuery>, Ambiguous> {
    let path = match (&route.strip_prefix, &route.rewrite.path) {
        (None, None) => return Ok(None),
        (Some(prefix), _) => match target.path().strip_prefix(prefix.as_str()) {
            Some("") => "/".to_owned(),
            Some(rest) if rest.starts_with('/') => rest.to_owned(),
            _ => return Ok(None),
        },
        (None, Some(template)) => fill(template, &route.path, target.path()),
    };
    settled(&path)?;
    with_path(&path, target.query()).map(Some)
}

/// Whether `path` is its own canonical form.
///
/// # Errors
/// When it is not.
pub fn settled(path: &str) -> Result<(), Ambiguous> {
    match canonical(path)? == path {
        true => Ok(()),
        false => Err(Ambiguous("can be read in another way after the route's rewrite")),
    }
}

/// The template with what `path`, which `pattern` has matched, puts in its places.
pub fn fill(template: &PathTemplate, pattern: &PathPattern, path: &str) -> String {
    let mut filled = String::with_capacity(template.text.len() + path.len());
    for piece in &template.pieces {
        filled.push('/');
        filled.push_str(match piece {
            Piece::Literal(text) => text,
            Piece::Segment(nth) => path.split('/').nth(nth + 1).unwrap_or_default(),
        });
    }
    if template.rest {
        filled.push_str(behind(path, pattern.segments.len()));
    } else if template.slash {
        filled.push('/');
    }
    if filled.is_empty() {
        filled.push('/');
    }
    filled
}

/// What of `path` stands behind its first `segments`, with the slash before it.
fn behind(path: &str, segments: usize) -> &str {
    path.match_indices('/').nth(segments).map_or("", |(at, _)| &path[at..])
}

#[cfg(test)]
mod tests;
