//! `[[error_page]]`: what browsers get in place of a problem.

use std::path::Path;

use super::super::file;
use super::super::report::Report;
use super::super::section::{ErrorPage, PagePart};
use super::super::url;
use super::super::value::Wrong;
use super::shared::content;

/// Largest page, bytes: it is kept in memory.
const MAX_PAGE: u64 = 64 * 1024;

/// `[[error_page]]`.
pub(super) fn pages(files: &[file::ErrorPage], folder: &Path, report: &mut Report<'_>) -> Vec<ErrorPage> {
    let mut pages: Vec<ErrorPage> = Vec::with_capacity(files.len());
    for (n, file) in files.iter().enumerate() {
        let at = format!("error_page[{n}]");
        let status: Vec<u16> = file.status.iter().flatten().filter_map(|status| u16::try_from(*status).ok()).collect();
        let taken = |page: &ErrorPage| match (status.is_empty(), page.status.is_empty()) {
            (true, true) => true,
            (false, false) => page.status.iter().any(|other| status.contains(other)),
            _ => false,
        };
        let judged = |n: usize| !report.is_refused_within(&format!("error_page[{n}].status"));
        let rival = judged(n) && pages.iter().enumerate().any(|(m, page)| taken(page) && judged(m));
        if rival {
            let what = "is for a status that another page is for; write each status once, and one page without any";
            report.fault(&format!("{at}.status"), what);
        }
        let read = |text: &str| url::file(text, folder).and_then(|path| content(&path, MAX_PAGE)).and_then(text_of);
        let html = file.file.as_deref().and_then(|text| report.read(&format!("{at}.file"), text, read));
        pages.push(ErrorPage { status, parts: html.as_deref().map(parts).unwrap_or_default() });
    }
    pages
}

fn text_of(bytes: Vec<u8>) -> Result<String, Wrong> {
    String::from_utf8(bytes).map_err(|_| Wrong::new("is not UTF-8", "save the file as UTF-8"))
}

/// The text in pieces, at its `{{…}}`; those of another name are text.
fn parts(html: &str) -> Vec<PagePart> {
    const NAMES: [(&str, PagePart); 3] =
        [("{{status}}", PagePart::Status), ("{{title}}", PagePart::Title), ("{{request_id}}", PagePart::RequestId)];
    let mut parts = Vec::new();
    let mut rest = html;
    while let Some((at, (name, part))) =
        NAMES.iter().filter_map(|known| Some((rest.find(known.0)?, known))).min_by_key(|(at, _)| *at)
    {
        parts.push(PagePart::Text(rest[..at].to_owned()));
        parts.push(part.clone());
        rest = &rest[at + name.len()..];
    }
    parts.push(PagePart::Text(rest.to_owned()));
    parts.retain(|part| !matches!(part, PagePart::Text(text) if text.is_empty()));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_text_around_what_it_names() {
        let text = |text: &str| PagePart::Text(text.to_owned());
        assert_eq!(
            parts("<p>{{status}} {{title}}</p>{{nothing}}{{request_id}}"),
            [text("<p>"), PagePart::Status, text(" "), PagePart::Title, text("</p>{{nothing}}"), PagePart::RequestId]
        );
        assert_eq!(parts(""), []);
    }
}
