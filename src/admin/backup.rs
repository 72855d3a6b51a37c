//! `/api/backup/{members|sessions}`: a copy of the database as it is at one moment, while everything goes on.

use std::io;
use std::sync::Arc;

use axum::body::Body as AxumBody;
use axum::extract::{Path, State};
use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response};
use tokio::io::AsyncReadExt as _;

use crate::problem::{Code, Problem};

use super::{Admin, Answer, refused};

/// Bytes that are sent in one piece.
const PIECE: usize = 256 * 1024;

/// `GET /api/backup/{which}`. Whoever has it has everything that is in the database, so it is written down.
pub(super) async fn database(State(admin): State<Arc<Admin>>, Path(which): Path<String>) -> Answer {
    match copied(&admin, &which).await {
        Ok(answer) => answer,
        Err(problem) => refused(problem),
    }
}

async fn copied(admin: &Admin, which: &str) -> Result<Answer, Problem> {
    let copy = match which {
        "members" => admin.gateway.copy_of_members(),
        "sessions" => admin.gateway.copy_of_sessions(),
        _ => return Err(Problem::new(Code::RouteNotFound, "There is a backup of `members` and of `sessions`.")),
    };
    let Some(copy) = copy else {
        let detail = "This store is a server of its own: use its own backup.";
        return Err(Problem::new(Code::NotImplemented, detail));
    };
    let begun = admin.audit.begin("backup", None).await?;
    let made = tokio::task::spawn_blocking(copy).await.map_err(Problem::internal)?;
    let made = made.map_err(|error| {
        tracing::error!(%error, "the database cannot be copied");
        let detail = "The database cannot be copied; the log says why.";
        Problem::new(Code::StoreUnavailable, detail).retry_after(5).caused_by(error)
    });
    begun.end_with(&made).await;
    stream(made?).map_err(Problem::internal)
}

/// The file from its beginning; it has no name any more, so it is gone when it was sent.
fn stream(file: std::fs::File) -> io::Result<Answer> {
    let length = file.metadata()?.len();
    let file = tokio::fs::File::from_std(file).take(length);
    let pieces = futures_util::stream::try_unfold(file, |mut file| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        match file.read_buf(&mut piece).await? {
            0 => Ok::<_, io::Error>(None),
            _ => Ok(Some((Bytes::from(piece), file))),
        }
    });
    let mut response = Response::new(AxumBody::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/vnd.sqlite3"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}
