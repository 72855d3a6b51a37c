//! The audit log: what operators changed, appended to one file that only the owner may read.
//!
//! Every change of the admin listener writes two lines of JSON, both on disk before anything goes on: one before it begins,
//! and one with how it ended. A change that cannot be written down is not made. A begin without an end is one whose outcome
//! nobody saw, because the process died. People stand here under the names that the other logs give them. The gateway never
//! shortens the file; it is opened anew for every line, so it may be moved away at any time.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock::Clock;
use crate::problem::{Code, Problem};

/// Name of the file, in the folder of the members' database.
pub const FILE: &str = "audit.log";

/// The log.
#[derive(Debug, Clone)]
pub struct AuditLog {
    path: PathBuf,
    clock: Clock,
}

/// A change that has begun.
#[derive(Debug)]
pub(super) struct Begun {
    log: AuditLog,
    id: Uuid,
    action: &'static str,
}

impl AuditLog {
    /// The log in this folder; made if it is missing.
    ///
    /// # Errors
    /// When it cannot be written, or others than its owner may read it.
    pub fn open(folder: &Path, clock: Clock) -> io::Result<Self> {
        let log = Self { path: folder.join(FILE), clock };
        log.file()?;
        Ok(log)
    }

    fn file(&self) -> io::Result<File> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let what = format!("{} has mode {mode:04o}: run `chmod 600` on it", self.path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        Ok(file)
    }

    /// Writes down that `action` begins; `person` is somebody's name in logs.
    ///
    /// # Errors
    /// `store_unavailable`, when it cannot be written: then it must not be done.
    pub(super) async fn begin(&self, action: &'static str, person: Option<&str>) -> Result<Begun, Problem> {
        self.begin_about(action, person, Value::Null).await
    }

    /// As [`AuditLog::begin`], with what it is about; nothing of a person.
    ///
    /// # Errors
    /// As [`AuditLog::begin`].
    pub(super) async fn begin_about(
        &self,
        action: &'static str,
        person: Option<&str>,
        about: Value,
    ) -> Result<Begun, Problem> {
        let begun = Begun { log: self.clone(), id: Uuid::now_v7(), action };
        let written = begun.append("begun", person, about).await;
        written.map_err(|cause| {
            tracing::error!(%cause, action, "the audit log cannot be written: refused");
            let detail = "The audit log cannot be written, and nothing is changed without it.";
            Problem::new(Code::StoreUnavailable, detail).retry_after(5).caused_by(cause)
        })?;
        Ok(begun)
    }
}

impl Begun {
    /// Writes down how it ended: done, or refused with which problem.
    pub(super) async fn end_with<T>(self, outcome: &Result<T, Problem>) {
        match outcome {
            Ok(_) => self.end("done").await,
            Err(problem) => self.end(&format!("refused: {}", problem.code().name())).await,
        }
    }

    /// Writes down how it ended.
    pub(super) async fn end(self, outcome: &str) {
        if let Err(error) = self.append(outcome, None, Value::Null).await {
            tracing::error!(%error, action = self.action, outcome, "the end of a change is missing in the audit log");
        }
    }

    async fn append(&self, outcome: &str, person: Option<&str>, about: Value) -> io::Result<()> {
        let mut line = json!({
            "at": self.log.clock.now().to_string(),
            "id": self.id.to_string(),
            "action": self.action,
            "outcome": outcome,
        });
        if let Some(person) = person {
            line["person"] = json!(person);
        }
        if !about.is_null() {
            line["about"] = about;
        }
        let log = self.log.clone();
        let write = move || {
            let mut file = log.file()?;
            // One write, so that lines of two processes do not mix.
            file.write_all(format!("{line}\n").as_bytes())?;
            file.sync_all()
        };
        tokio::task::spawn_blocking(write).await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_appended_and_nobody_else_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        for outcome in ["done", "refused: invalid_request"] {
            let log = AuditLog::open(dir.path(), Clock::system()).unwrap();
            log.begin("reload", Some("p1")).await.unwrap().end(outcome).await;
        }
        let path = dir.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let outcomes: Vec<_> = lines.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["begun", "done", "begun", "refused: invalid_request"]);
        assert_eq!((&lines[0]["id"], &lines[0]["person"]), (&lines[1]["id"], &json!("p1")));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn without_the_log_nothing_begins() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::open(dir.path(), Clock::system()).unwrap();
        std::fs::set_permissions(dir.path().join(FILE), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(log.begin("reload", None).await.unwrap_err().code(), Code::StoreUnavailable);
        assert!(AuditLog::open(dir.path(), Clock::system()).is_err());
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        std::fs::create_dir(dir.path().join(FILE)).unwrap();
        assert_eq!(log.begin("reload", None).await.unwrap_err().code(), Code::StoreUnavailable);
    }
}
