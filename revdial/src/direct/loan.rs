//! The transport of a direct connection in the hands of one task.

use std::io;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use super::BoxTransport;

/// The transport in the hands of one task.
pub(super) struct Loan {
    pub(super) transport: BoxTransport,
    pub(super) reading: Reading,
    pub(super) writing: Writing,
    /// Nobody else sees to it that written bytes leave.
    pub(super) writer_is_absent: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reading {
    /// Nobody reads: what comes is thrown away.
    Abandoned,
    Ended,
    Open,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Writing {
    Finished,
    Finishing,
    Open,
    /// The transport holds bytes that it has not passed on.
    Unflushed,
}

impl Loan {
    /// Notes written bytes, and passes them on: they leave without a flush as well.
    pub(super) fn taken(&mut self, count: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.writing = match self.transport.as_mut().poll_flush(cx) {
            Poll::Ready(_) => Writing::Open,
            Poll::Pending => Writing::Unflushed,
        };
        Poll::Ready(Ok(count))
    }

    /// Passes on what a writer left behind that has turned to reading.
    pub(super) fn push_out(&mut self, cx: &mut Context<'_>) {
        let left_behind = self.writing == Writing::Unflushed && self.writer_is_absent;
        if left_behind && self.transport.as_mut().poll_flush(cx).is_ready() {
            self.writing = Writing::Open;
        }
    }

    /// Throws away what comes while nobody reads: a peer that cannot write may not read either.
    pub(super) fn discard(&mut self, cx: &mut Context<'_>) {
        if self.reading != Reading::Abandoned {
            return;
        }
        let mut scratch = [0; DISCARD_SIZE];
        for _ in 0..DISCARDS_PER_POLL {
            let mut buf = ReadBuf::new(&mut scratch);
            match self.transport.as_mut().poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => {
                    self.reading = Reading::Ended;
                    return;
                }
                Poll::Pending => return,
            }
        }
        cx.waker().wake_by_ref();
    }
}

const DISCARD_SIZE: usize = 4 * 1024;
/// Reads of a writer before it gets its turn.
const DISCARDS_PER_POLL: usize = 8;
