use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Keeps a log of the bytes that went by.
#[derive(Debug)]
pub struct Tap<S> {
    inner: S,
    log: TapLog,
}

/// Which way bytes went, seen from the tapped end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "bytes go in or out")]
pub enum Direction {
    /// They were read.
    In,
    /// They were written.
    Out,
}

/// What a [`Tap`] has seen.
#[derive(Clone, Debug, Default)]
pub struct TapLog(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    entries: Vec<(Direction, Vec<u8>)>,
    kept: usize,
    read: u64,
    written: u64,
    writes: u64,
}

impl<S> Tap<S> {
    /// A tap and its log.
    pub fn new(inner: S) -> (Self, TapLog) {
        let log = TapLog::default();
        let tap = Self {
            inner,
            log: log.clone(),
        };
        (tap, log)
    }
}

impl TapLog {
    /// How many bytes were read.
    pub fn read(&self) -> u64 {
        self.lock().read
    }

    /// How many bytes were written.
    pub fn written(&self) -> u64 {
        self.lock().written
    }

    /// How many writes there were of at least one byte, each by one call.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// The reads and writes so far, in order, as far as their first MiB goes.
    pub fn entries(&self) -> Vec<(Direction, Vec<u8>)> {
        self.lock().entries.clone()
    }

    fn add(&self, direction: Direction, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut log = self.lock();
        match direction {
            Direction::In => log.read += bytes.len() as u64,
            Direction::Out => {
                log.written += bytes.len() as u64;
                log.writes += 1;
            }
        }
        if log.kept + bytes.len() <= KEPT {
            log.kept += bytes.len();
            log.entries.push((direction, bytes.to_vec()));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.log.add(Direction::In, &buf.filled()[before..]);
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = &poll {
            self.log.add(Direction::Out, &buf[..*n]);
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(n)) = &poll {
            let bytes = bufs.iter().flat_map(|buf| buf.iter().copied());
            self.log
                .add(Direction::Out, &bytes.take(*n).collect::<Vec<u8>>());
        }
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// The most bytes that a log keeps; sums go on.
const KEPT: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_log_tells_both_ways_apart() {
        let (a, mut b) = tokio::io::duplex(64);
        let (mut a, log) = Tap::new(a);
        a.write_all(b"out").await.unwrap();
        b.write_u8(b'i').await.unwrap();
        a.read_u8().await.unwrap();
        assert_eq!((log.read(), log.written(), log.writes()), (1, 3, 1));
        let entries = [
            (Direction::Out, b"out".to_vec()),
            (Direction::In, b"i".to_vec()),
        ];
        assert_eq!(log.entries(), entries);
    }
}
