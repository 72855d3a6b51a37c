//! The query of a list: known names, each once, and nothing else.

use std::collections::BTreeMap;

use crate::problem::{Code, Problem};

/// Longest page, and the usual one.
const MOST: u32 = 500;
const USUAL: u32 = 50;

/// What is left to be read of a query.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

/// Which part of a list.
#[derive(Debug)]
pub(super) struct Page {
    /// At most so many.
    pub(super) limit: u32,
    /// `next` of the page before.
    pub(super) after: Option<String>,
}

impl Query {
    /// # Errors
    /// `invalid_request` when a name stands there twice.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, Problem> {
        let mut pairs = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            if pairs.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Problem::new(Code::InvalidRequest, "A name stands in the query twice."));
            }
        }
        Ok(Self(pairs))
    }

    /// The value of this name, if it is there and not empty.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    /// `limit` and `after`.
    ///
    /// # Errors
    /// `invalid_request`.
    pub(super) fn page(&mut self) -> Result<Page, Problem> {
        let limit = match self.take("limit") {
            None => USUAL,
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| (1..=MOST).contains(n))
                .ok_or_else(|| Problem::new(Code::InvalidRequest, "`limit` is a number from 1 to 500."))?,
        };
        Ok(Page { limit, after: self.take("after") })
    }

    /// # Errors
    /// `invalid_request` when something is left: a slip must not widen what is asked for.
    pub(super) fn end(self) -> Result<(), Problem> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(_) => Err(Problem::new(Code::InvalidRequest, "The query has a name that is not known here.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_whole_or_refused() {
        let mut query = Query::parse(Some("app=wx1&nickname=%E7%88%B1+x&limit=7&after=")).unwrap();
        assert_eq!(query.take("nickname").as_deref(), Some("爱 x"));
        let page = query.page().unwrap();
        assert_eq!((page.limit, page.after), (7, None));
        assert!(query.end().is_err(), "app is left");
        assert!(Query::parse(Some("a=1&a=2")).is_err());
        for limit in ["0", "501", "-1", "x"] {
            assert!(Query::parse(Some(&format!("limit={limit}"))).unwrap().page().is_err(), "{limit}");
        }
    }
}
