//! The end of a tunnel that is ended from outside.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::frames::close;
use super::relay::at_most;
use super::way::Way;
use super::{Ending, Stream};

/// How long the frame that has begun may take to its end; then the connection ends without a close frame, which could
/// only be read as a part of that frame.
const FINISH: Duration = Duration::from_millis(500);

/// How long the client may take to read the close frame, and to answer it.
const LINGER: Duration = Duration::from_secs(1);

/// Tells a WebSocket's client why, at the end of a frame, and waits a moment for it to close. Closing with bytes unread
/// would reset the connection, and the client might lose the close frame.
pub(super) async fn gently(down: &mut Way, upstream: &mut dyn Stream, client: &mut impl Stream, ending: Ending) {
    if !down.over && down.frames.as_ref().is_some_and(|frames| !frames.is_closed()) {
        let at_boundary = at_most(FINISH, |cx| down.poll_boundary(cx, upstream, client)).await;
        if at_boundary == Some(true) {
            let frame = close(ending.code, ending.reason);
            let written = async {
                client.write_all(&frame).await?;
                client.flush().await
            };
            if !matches!(tokio::time::timeout(FINISH, written).await, Ok(Ok(()))) {
                return;
            }
            down.moved += frame.len() as u64;
        }
    }
    let _ = tokio::time::timeout(LINGER, async {
        client.shutdown().await?;
        let mut scrap = [0; 1024];
        while client.read(&mut scrap).await? > 0 {}
        std::io::Result::Ok(())
    })
    .await;
}
