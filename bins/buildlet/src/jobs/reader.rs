//! A job's output for one reader, as frames.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use buildlet_proto::ApiError;
use buildlet_proto::api::ByteReader;
use buildlet_proto::jobs::OutputRequest;
use buildlet_proto::jobs::frame::{Frame, MAX_DATA, Stream};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, SimplexStream, simplex};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

use super::conflict;
use super::job::{Job, Phase};
use super::store::{Index, Piece};

/// Starts to read a job's output. The job does not wait for its readers, and a reader holds a frame or two.
pub(super) fn read(job: Arc<Job>, from: OutputRequest) -> Result<ByteReader, ApiError> {
    if job.about.attached {
        return Err(conflict(
            "the output of this command goes to its client alone",
        ));
    }
    for (name, offset, index) in [
        ("stdout", from.stdout, &job.stdout),
        ("stderr", from.stderr, &job.stderr),
    ] {
        let end = index.end();
        if offset > end {
            let message = format!("bad '{name}' parameter: there are {end} bytes so far");
            return Err(ApiError::bad_request(message));
        }
    }
    let (frames, out) = simplex(PIPE);
    let reading = tokio::spawn(async move {
        let mut reader = Reader {
            positions: [(Stream::Stdout, from.stdout), (Stream::Stderr, from.stderr)],
            job,
            out,
            buffer: BytesMut::new(),
        };
        if let Err(error) = reader.run(from.follow).await {
            tracing::debug!(job = %reader.job.id, %error, "a reader was cut");
        }
        // A simplex whose writer is gone reads as an end, where it is to be a cut; the missing last frame says so.
        let _ = reader.out.shutdown().await;
    });
    Ok(Box::pin(Frames {
        frames,
        _reading: AbortOnDropHandle::new(reading),
    }))
}

struct Reader<W> {
    job: Arc<Job>,
    /// What comes next of each stream.
    positions: [(Stream, u64); 2],
    out: W,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> Reader<W> {
    async fn run(&mut self, follow: bool) -> io::Result<()> {
        let mut progress = self.job.progress.subscribe();
        let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Looked at before the output is read: what there is at the end is then read to the end.
            let is_over = {
                let progress = progress.borrow_and_update();
                if progress.is_forgotten {
                    return Err(io::ErrorKind::NotFound.into());
                }
                matches!(progress.phase, Phase::Ended | Phase::NotStarted)
            };
            while self.send_some().await? {}
            if is_over || !follow {
                return self.send_end().await;
            }
            tokio::select! {
                changed = progress.changed() => changed.map_err(io::Error::other)?,
                _ = heartbeat.tick() => self.send(&Frame::Heartbeat).await?,
            }
        }
    }

    /// Sends one piece of each stream; whether there was any.
    async fn send_some(&mut self) -> io::Result<bool> {
        let mut any = false;
        for place in 0..self.positions.len() {
            let (stream, offset) = self.positions[place];
            let index = self.job.index(stream).clone();
            // Most streams have nothing most of the time; no thread is bothered for that.
            if index.end() <= offset {
                continue;
            }
            let (next, frame) = match read_piece(index, offset).await? {
                Piece::Bytes(bytes) => {
                    let next = offset + bytes.len() as u64;
                    let bytes = bytes.into();
                    let frame = Frame::Data {
                        stream,
                        offset,
                        bytes,
                    };
                    (next, frame)
                }
                Piece::Gap(end) => {
                    let frame = Frame::Gap {
                        stream,
                        offset,
                        end,
                    };
                    (end, frame)
                }
                Piece::Nothing => continue,
            };
            self.send(&frame).await?;
            self.positions[place] = (stream, next);
            any = true;
        }
        Ok(any)
    }

    async fn send_end(&mut self) -> io::Result<()> {
        let job = serde_json::to_vec(&self.job.tell())?;
        self.send(&Frame::End { job: job.into() }).await
    }

    async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.buffer.clear();
        frame.encode(&mut self.buffer);
        self.out.write_all(&self.buffer).await
    }
}

async fn read_piece(index: Arc<Index>, offset: u64) -> io::Result<Piece> {
    tokio::task::spawn_blocking(move || index.read(offset, MAX_DATA))
        .await
        .map_err(io::Error::other)?
}

/// The frames, whose reading ends with them.
struct Frames {
    frames: tokio::io::ReadHalf<SimplexStream>,
    _reading: AbortOnDropHandle<()>,
}

impl AsyncRead for Frames {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_read(cx, buf)
    }
}

/// How much waits for the network.
const PIPE: usize = 64 * 1024;
/// Many middle boxes cut what is silent for a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);
