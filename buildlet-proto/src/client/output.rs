//! A job's output, read to its end whatever becomes of the connection.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::jobs::job_of;
use super::reply::{ReplyReader, cut};
use super::{Client, Connect};
use crate::ApiError;
use crate::coordinator::EXPIRED;
use crate::jobs::frame::{Frame, Stream};
use crate::jobs::{Job, JobId, OutputRequest};

/// The output of a job as it comes. Where the connection breaks it is opened again at the byte where it broke: at once, and
/// where that fails after pauses that grow to ten seconds. No byte is lost, and none comes twice.
pub struct JobOutput<C> {
    client: Client<C>,
    id: JobId,
    /// What comes next.
    from: OutputRequest,
    patience: Duration,
    reply: Option<ReplyReader>,
    input: BytesMut,
    trouble: Option<Trouble>,
}

/// What has become of the connection since the last byte that came.
struct Trouble {
    since: Instant,
    attempts: u32,
    retry_at: Instant,
}

/// What comes next of a job's output.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum JobEvent {
    /// Bytes that were written.
    Data {
        /// Where to.
        stream: Stream,
        /// The place of the first one.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Everything was read: to the end of the job where it was followed.
    End(Box<Job>),
    /// Bytes that the machine has not kept.
    Gap {
        /// Whose.
        stream: Stream,
        /// The first that is gone.
        offset: u64,
        /// The first that is not.
        end: u64,
    },
    /// The connection has broken and cannot be made again at once; said once for each break. There may be more to come.
    Retrying {
        /// What went wrong, for a person.
        why: String,
    },
}

impl<C: Connect> JobOutput<C> {
    pub(super) fn new(client: Client<C>, id: JobId, from: OutputRequest) -> Self {
        Self {
            client,
            id,
            from,
            patience: PATIENCE,
            reply: None,
            input: BytesMut::new(),
            trouble: None,
        }
    }

    /// Gives up where nothing came for so long, over all attempts; without this, for ten minutes.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Where in both streams the next bytes are: what to ask for, to go on with another reader.
    pub fn position(&self) -> OutputRequest {
        self.from
    }

    /// Waits for the next piece of output. Do not ask again behind [`JobEvent::End`].
    ///
    /// # Errors
    ///
    /// Where the machine has no such job any more, or where going on is no use: the lease has ended, we may not ask, the
    /// server does not speak this protocol, or it could not be reached for as long as our patience lasts.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: the next call goes on.
    pub async fn next(&mut self) -> Result<JobEvent, ApiError> {
        loop {
            if let Some(event) = self.buffered()? {
                return Ok(event);
            }
            let error = match self.fill().await {
                Ok(()) => continue,
                Err(error) => error,
            };
            self.reply = None;
            let arrived = Frame::salvage(&mut self.input);
            self.input.clear();
            if is_final(&error) {
                return Err(error);
            }
            if let Some(frame) = arrived {
                if let Some(event) = self.event(frame)? {
                    return Ok(event);
                }
            }
            let why = error.to_string();
            if self.in_trouble(error)? == SECOND {
                return Ok(JobEvent::Retrying { why });
            }
        }
    }

    /// Takes the next event out of what was received.
    fn buffered(&mut self) -> Result<Option<JobEvent>, ApiError> {
        loop {
            let frame =
                Frame::decode(&mut self.input).map_err(|error| nonsense().because(error))?;
            let Some(frame) = frame else { return Ok(None) };
            if let Some(event) = self.event(frame)? {
                return Ok(Some(event));
            }
        }
    }

    /// What a frame says, if it is news.
    fn event(&mut self, frame: Frame) -> Result<Option<JobEvent>, ApiError> {
        self.trouble = None;
        match frame {
            Frame::Data {
                stream,
                offset,
                bytes,
            } => {
                let end = offset.checked_add(bytes.len() as u64);
                let end = end.ok_or_else(nonsense)?;
                self.advance(stream, offset, end).ok_or_else(nonsense)?;
                Ok(Some(JobEvent::Data {
                    stream,
                    offset,
                    bytes,
                }))
            }
            Frame::Gap {
                stream,
                offset,
                end,
            } => {
                self.advance(stream, offset, end).ok_or_else(nonsense)?;
                Ok(Some(JobEvent::Gap {
                    stream,
                    offset,
                    end,
                }))
            }
            Frame::End { job } => Ok(Some(JobEvent::End(Box::new(job_of(&job)?)))),
            Frame::Heartbeat => Ok(None),
        }
    }

    /// `None` where the bytes from `offset` to `end` are not those that come next.
    fn advance(&mut self, stream: Stream, offset: u64, end: u64) -> Option<()> {
        let position = match stream {
            Stream::Stdout => &mut self.from.stdout,
            Stream::Stderr => &mut self.from.stderr,
        };
        if *position != offset {
            return None;
        }
        *position = end;
        Some(())
    }

    /// Receives more, on a new connection where there is none.
    async fn fill(&mut self) -> Result<(), ApiError> {
        if self.reply.is_none() {
            if let Some(trouble) = &self.trouble {
                tokio::time::sleep_until(trouble.retry_at).await;
            }
            self.reply = Some(self.client.open_job_output(self.id, self.from).await?);
        }
        let Some(reply) = &mut self.reply else {
            return Ok(());
        };
        self.input.reserve(READ_SIZE);
        let read = tokio::time::timeout(SILENCE, reply.read_buf(&mut self.input)).await;
        match read {
            Err(_) => Err(ApiError::bad_gateway("the machine has become silent")),
            Ok(Err(error)) => Err(cut(error)),
            Ok(Ok(0)) => Err(ApiError::bad_gateway("the output stopped before its end")),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// Plans the next attempt, unless there were enough, and tells how many there were.
    fn in_trouble(&mut self, error: ApiError) -> Result<u32, ApiError> {
        let now = Instant::now();
        let (since, attempts) = self
            .trouble
            .as_ref()
            .map_or((now, 0), |trouble| (trouble.since, trouble.attempts));
        if now.duration_since(since) >= self.patience {
            return Err(error);
        }
        tracing::debug!(job = %self.id, %error, attempts, "reading on after a break");
        let pause = match attempts {
            0 => Duration::ZERO,
            _ => FIRST_PAUSE
                .saturating_mul(1 << attempts.min(10))
                .min(LAST_PAUSE),
        };
        self.trouble = Some(Trouble {
            since,
            attempts: attempts + 1,
            retry_at: now + pause.mul_f64(self.jitter(attempts)),
        });
        Ok(attempts + 1)
    }

    /// Between a half and one, different for each job: those who lost one machine do not come back as one.
    fn jitter(&self, attempts: u32) -> f64 {
        let mut hasher = DefaultHasher::new();
        (self.id, attempts).hash(&mut hasher);
        let [low, ..] = hasher.finish().to_le_bytes();
        0.5 + f64::from(low) / 512.0
    }
}

impl<C> std::fmt::Debug for JobOutput<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobOutput")
            .field("id", &self.id)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

fn nonsense() -> ApiError {
    ApiError::bad_gateway("the output of the job is not as the protocol wants it")
}

/// Whether asking again is no use.
fn is_final(error: &ApiError) -> bool {
    error.status().status().is_client_error() || error.message().contains(EXPIRED)
}

/// The attempt after which a break is worth a word: the first one has no pause, and mostly goes well.
const SECOND: u32 = 2;
/// Longer than a coordinator, or a machine's connection, takes to come back; shorter than a lease.
const PATIENCE: Duration = Duration::from_secs(600);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// Three heartbeats of the machine.
const SILENCE: Duration = Duration::from_secs(45);
const READ_SIZE: usize = 64 * 1024;
