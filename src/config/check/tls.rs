//! `server.tls`: certificates and their keys, read from their files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::certificate::{self, Certificate};
use super::super::file;
use super::super::report::Report;
use super::super::url;
use super::super::value::Wrong;

/// `server.tls`, one or several.
pub(super) fn certificates(file: Option<&file::Tls>, folder: &Path, report: &mut Report<'_>) -> Vec<Certificate> {
    match file {
        None => Vec::new(),
        Some(file::Tls::One(one)) => certificate(one, "server.tls", folder, report).into_iter().collect(),
        Some(file::Tls::Many(many)) => {
            let mut read = |(n, one)| certificate(one, &format!("server.tls[{n}]"), folder, report);
            many.iter().enumerate().filter_map(&mut read).collect()
        }
    }
}

fn certificate(file: &file::Certificate, at: &str, folder: &Path, report: &mut Report<'_>) -> Option<Certificate> {
    fn read<T>(text: &str, folder: &Path, of: fn(&Path) -> Result<T, Wrong>) -> Result<(PathBuf, T), Wrong> {
        let path = url::file(text, folder)?;
        let content = of(&path)?;
        Ok((path, content))
    }
    let key_name = format!("{at}.key");
    let chain = file
        .cert
        .as_deref()
        .and_then(|text| report.read(&format!("{at}.cert"), text, |text| read(text, folder, certificate::chain)));
    let key =
        file.key.as_deref().and_then(|text| report.read(&key_name, text, |text| read(text, folder, certificate::key)));
    let ((cert, chain), (key, secret)) = (chain?, key?);
    let certified = report.read(&key_name, "", |_| certificate::certified(chain, secret))?;
    Some(Certificate { cert, key, certified: Arc::new(certified) })
}
