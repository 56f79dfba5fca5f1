use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::deadlined::{DeadlineControl, Deadlined};
use crate::pair::{Control, End, Pair};

/// A pair in memory with every capability of a single connection: half close, visible resets, deadlines, close and
/// reset from any task, addresses, vectored writes, and [`REFERENCE_CAPACITY`] unread bytes in each direction.
pub fn reference() -> Pair {
    let (a, b) = raw(REFERENCE_CAPACITY);
    Pair::of(
        end(a, "memory:a", "memory:b"),
        end(b, "memory:b", "memory:a"),
    )
}

fn end(pipe: Pipe, local: &str, peer: &str) -> End {
    let stream = Deadlined::with_addresses(pipe, Some(local.to_owned()), Some(peer.to_owned()));
    let control = PipeControl(stream.control());
    End::with_control(stream, control)
}

/// A pair without deadlines and close.
pub(crate) fn raw(capacity: usize) -> (Pipe, Pipe) {
    let lanes = [Lane::shared(capacity), Lane::shared(capacity)];
    let a = Pipe {
        inbound: Arc::clone(&lanes[1]),
        outbound: Arc::clone(&lanes[0]),
    };
    let b = Pipe {
        inbound: Arc::clone(&lanes[0]),
        outbound: Arc::clone(&lanes[1]),
    };
    (a, b)
}

/// One end: it reads one lane and writes the other.
#[derive(Debug)]
pub(crate) struct Pipe {
    inbound: Arc<Mutex<Lane>>,
    outbound: Arc<Mutex<Lane>>,
}

/// The bytes of one direction.
#[derive(Debug)]
struct Lane {
    queue: VecDeque<u8>,
    capacity: usize,
    end: Ending,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    Open,
    Finished,
    Reset,
}

impl Lane {
    fn shared(capacity: usize) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            queue: VecDeque::new(),
            capacity,
            end: Ending::Open,
            reader_gone: false,
            reader: None,
            writer: None,
        }))
    }
}

fn lock(lane: &Mutex<Lane>) -> MutexGuard<'_, Lane> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes a lane, then wakes whom it concerns, after the lock is gone.
fn change(lane: &Mutex<Lane>, change: impl FnOnce(&mut Lane)) {
    let wakers = {
        let mut lane = lock(lane);
        change(&mut lane);
        [lane.reader.take(), lane.writer.take()]
    };
    wakers.into_iter().flatten().for_each(Waker::wake);
}

impl Pipe {
    /// Ends our direction: the peer reads what is queued, then the end.
    pub(crate) fn finish(&self) {
        change(&self.outbound, |lane| {
            if lane.end == Ending::Open {
                lane.end = Ending::Finished;
            }
        });
    }

    /// Ends both directions as a failure.
    pub(crate) fn reset(&self) {
        change(&self.outbound, |lane| lane.end = Ending::Reset);
        change(&self.inbound, |lane| lane.end = Ending::Reset);
    }

    fn write(&self, cx: &Context<'_>, bufs: &[&[u8]]) -> Poll<io::Result<usize>> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let (n, reader) = {
            let mut lane = lock(&self.outbound);
            match lane.end {
                Ending::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Ending::Finished => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Ending::Open if lane.reader_gone => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Ending::Open => {}
            }
            let room = lane.capacity.saturating_sub(lane.queue.len());
            if room == 0 && total > 0 {
                lane.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let mut left = room;
            for buf in bufs {
                let n = buf.len().min(left);
                lane.queue.extend(&buf[..n]);
                left -= n;
            }
            (room - left, lane.reader.take())
        };
        if let Some(reader) = reader.filter(|_| n > 0) {
            reader.wake();
        }
        Poll::Ready(Ok(n))
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let writer = {
            let mut lane = lock(&self.inbound);
            if lane.queue.is_empty() {
                return match lane.end {
                    Ending::Open => {
                        lane.reader = Some(cx.waker().clone());
                        Poll::Pending
                    }
                    Ending::Finished => Poll::Ready(Ok(())),
                    Ending::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                };
            }
            let n = buf.remaining().min(lane.queue.len());
            let (front, back) = lane.queue.as_slices();
            let from_front = n.min(front.len());
            buf.put_slice(&front[..from_front]);
            buf.put_slice(&back[..n - from_front]);
            lane.queue.drain(..n);
            lane.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, &[buf])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bufs: Vec<&[u8]> = bufs.iter().map(|buf| &**buf).collect();
        self.write(cx, &bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl Drop for Pipe {
    /// An end that has not said its last word takes it back: the peer must not mistake it for the end.
    fn drop(&mut self) {
        change(&self.outbound, |lane| {
            if lane.end == Ending::Open {
                lane.end = Ending::Reset;
            }
        });
        change(&self.inbound, |lane| lane.reader_gone = true);
    }
}

/// Close, reset and deadlines of a [`Pipe`].
pub(crate) struct PipeControl(pub(crate) DeadlineControl<Pipe>);

impl Control for PipeControl {
    fn close(&self) {
        self.0.with_stream(|pipe| pipe.finish());
        self.0.close();
    }

    fn reset(&self) {
        self.0.with_stream(|pipe| pipe.reset());
    }

    fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.0.set_read_deadline(deadline);
    }

    fn set_write_deadline(&self, deadline: Option<Instant>) {
        self.0.set_write_deadline(deadline);
    }

    fn local_addr(&self) -> Option<String> {
        self.0.local_addr()
    }

    fn peer_addr(&self) -> Option<String> {
        self.0.peer_addr()
    }
}

/// The unread bytes that one direction of a [`reference()`] pair holds: far below the sizes that cases send, so that
/// backpressure is part of them.
pub const REFERENCE_CAPACITY: usize = 64 * 1024;
