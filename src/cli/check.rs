//! `wxgate check`: is this configuration good? Opens no socket.

use std::io::{self, Write};
use std::path::Path;

use crate::config::{Environment, Faults, parse};

/// Checks the file at `config` and says so on `out`, or prints every fault on `err`, one a line.
///
/// The exit status is 0, or 64 (`EX_USAGE`) when there are faults.
///
/// # Errors
/// When the answer cannot be written.
pub fn run(config: &Path, env: &Environment, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    match read(config, env) {
        Ok(said) => writeln!(out, "{said}").map(|()| 0),
        Err(faults) => writeln!(err, "{faults}").map(|()| 64),
    }
}

fn read(path: &Path, env: &Environment) -> Result<String, Faults> {
    let text = crate::config::read(path)?;
    let config = parse(text, path, env)?;
    let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    Ok(format!(
        "{} is valid: {}, {}, {}",
        path.display(),
        count(config.apps.len(), "app"),
        count(config.upstreams.len(), "upstream"),
        count(config.routes.len(), "route")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        [token]
        issuer = "https://api.example.com"
        [[app]]
        appid = "wx0123456789abcdef"
        secret = "${WX_SECRET}"
    "#;

    fn checked(text: &str, env: &Environment) -> (u8, String, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = run(&path, env, &mut out, &mut err).unwrap();
        (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_good_file_is_answered_with_0_and_one_line() {
        let (status, out, err) = checked(MINIMAL, &Environment::of([("WX_SECRET", "abc")]));
        assert_eq!((status, err.as_str()), (0, ""));
        assert!(out.ends_with("gateway.toml is valid: 1 app, 0 upstreams, 0 routes\n"), "{out}");
    }

    #[test]
    fn a_faulty_file_is_answered_with_64_and_every_fault() {
        let (status, out, err) = checked(&format!("{MINIMAL}\nkind = \"game\"\n"), &Environment::of([]));
        assert_eq!((status, out.as_str()), (64, ""));
        assert_eq!(err.lines().count(), 2, "{err}");
        assert!(err.contains("gateway.toml:6: app[0].secret: ") && err.contains("WX_SECRET"), "{err}");
        assert!(err.contains("gateway.toml:8: app[0].kind: "), "{err}");
    }

    #[test]
    fn a_missing_file_is_a_fault_too() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = run(Path::new("/nonexistent/gateway.toml"), &Environment::of([]), &mut out, &mut err).unwrap();
        assert_eq!(status, 64);
        assert!(String::from_utf8(err).unwrap().starts_with("/nonexistent/gateway.toml: cannot be read"));
    }
}
