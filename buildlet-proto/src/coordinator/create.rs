//! The reply to `/buildlet/create`, in the form of 2017 and in that of 2019.

use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::{Instance, X_SUPPORTED_VERSION};
use crate::client::reply::{Reply, ReplyReader, cut};
use crate::{ApiError, ErrorStatus};

/// A place in the queue for a machine.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
#[non_exhaustive]
pub struct Waiting {
    /// What the coordinator has to say; often nothing.
    pub message: String,
    /// How many requests come first.
    pub ahead: u64,
    /// Why there is no machine, from our coordinators.
    pub reason: String,
}

/// Reads the instance out of a reply of either form.
pub(super) async fn read(
    reply: Reply,
    on_wait: impl FnMut(Waiting) + Send,
) -> Result<Instance, ApiError> {
    if reply.headers().contains_key(X_SUPPORTED_VERSION) {
        return read_lines(reply.into_reader(), on_wait).await;
    }
    let json = reply.bytes(LINE_LIMIT).await?;
    serde_json::from_slice(&json).map_err(unexpected)
}

async fn read_lines(
    reader: ReplyReader,
    mut on_wait: impl FnMut(Waiting) + Send,
) -> Result<Instance, ApiError> {
    let mut lines = BufReader::new(reader);
    loop {
        let line = tokio::time::timeout(SILENCE, next_line(&mut lines))
            .await
            .map_err(|_| ApiError::bad_gateway("the coordinator has stopped answering"))??;
        match serde_json::from_slice(&line).map_err(unexpected)? {
            Line::Buildlet(instance) => return Ok(instance),
            Line::Error(message) => return Err(ApiError::new(ErrorStatus::UNAVAILABLE, message)),
            Line::Status(waiting) => on_wait(waiting),
        }
    }
}

async fn next_line(lines: &mut BufReader<ReplyReader>) -> Result<Vec<u8>, ApiError> {
    let mut line = Vec::new();
    let mut limited = lines.take(LINE_LIMIT as u64);
    limited.read_until(b'\n', &mut line).await.map_err(cut)?;
    if line.is_empty() {
        let message = "the coordinator ended its reply without an instance";
        return Err(ApiError::bad_gateway(message));
    }
    Ok(line)
}

fn unexpected(error: serde_json::Error) -> ApiError {
    ApiError::bad_gateway("the coordinator's reply is not as expected").because(error)
}

/// One line of the form of 2019: an object of one key.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Buildlet(Instance),
    Error(String),
    Status(Waiting),
}

/// Hundreds of times what a line has.
const LINE_LIMIT: usize = 64 * 1024;
/// Coordinators send a line every five seconds.
const SILENCE: Duration = Duration::from_secs(60);
