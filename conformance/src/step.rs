//! Polling by hand, with wakers that count.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::context::{Cx, ensure};
use crate::report::{Failure, describe};

/// A waker that counts how often it was called and how many copies of it exist.
pub(crate) struct CountingWaker {
    count: Arc<Count>,
    waker: Waker,
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl CountingWaker {
    pub(crate) fn new() -> Self {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        Self { count, waker }
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    /// How often it was called.
    pub(crate) fn wakes(&self) -> usize {
        self.count.0.load(Ordering::SeqCst)
    }

    /// How many copies others hold.
    pub(crate) fn copies(&self) -> usize {
        Arc::strong_count(&self.count) - 2
    }
}

/// One poll of a read into `buf`: the bytes read.
pub(crate) fn poll_read(
    io: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buf: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buf = ReadBuf::new(buf);
    Pin::new(io)
        .poll_read(cx, &mut buf)
        .map_ok(|()| buf.filled().len())
}

/// One poll of a write.
pub(crate) fn poll_write(
    io: &mut (impl AsyncWrite + Unpin),
    cx: &mut Context<'_>,
    buf: &[u8],
) -> Poll<io::Result<usize>> {
    Pin::new(io).poll_write(cx, buf)
}

/// A future of the single-step executor: it runs only when it is polled, and counts who asks for it.
pub(crate) struct Step<F> {
    future: Pin<Box<F>>,
    pub(crate) waker: CountingWaker,
}

impl<F: Future> Step<F> {
    pub(crate) fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            waker: CountingWaker::new(),
        }
    }

    pub(crate) fn poll(&mut self) -> Poll<F::Output> {
        self.future.as_mut().poll(&mut self.waker.context())
    }
}

/// Writes zeros until the connection takes no more, and leaves `waker` registered. Returns the bytes taken.
pub(crate) async fn fill(
    cx: &Cx,
    io: &mut (impl AsyncWrite + Unpin),
    waker: &CountingWaker,
) -> Result<usize, Failure> {
    cx.step("filling the connection");
    let zeros = vec![0; FILL];
    let mut taken = 0;
    let mut stuck = 0;
    while taken < FILL_LIMIT {
        match poll_write(io, &mut waker.context(), &zeros) {
            Poll::Ready(Ok(n)) => {
                ensure(
                    n > 0 && n <= FILL,
                    "a write of 1 to 16384 bytes",
                    format!("{n}"),
                )?;
                taken += n;
                stuck = 0;
            }
            Poll::Ready(Err(error)) => {
                return Err(Failure::new("a write to succeed", describe(&error))
                    .at(format!("at byte {taken}")));
            }
            Poll::Pending if stuck == 2 => return Ok(taken),
            Poll::Pending => {
                stuck += 1;
                cx.settle().await;
            }
        }
    }
    Err(Failure::new(
        "a pending write at some point while nobody reads",
        format!("{} MiB taken", taken >> 20),
    ))
}

/// Polls a read once more and expects it to be pending, with `waker` registered.
pub(crate) fn park_read(
    io: &mut (impl AsyncRead + Unpin),
    waker: &CountingWaker,
) -> Result<(), Failure> {
    let mut byte = [0];
    let seen = match poll_read(io, &mut waker.context(), &mut byte) {
        Poll::Pending => return Ok(()),
        Poll::Ready(Ok(n)) => format!("a read of {n} bytes"),
        Poll::Ready(Err(error)) => describe(&error),
    };
    Err(Failure::new("a pending read while nothing was sent", seen))
}

/// What [`fill`] writes, as often as it is taken.
pub(crate) const FILL: usize = 16 * 1024;

/// The most that [`fill`] writes before it gives up waiting for backpressure.
pub(crate) const FILL_LIMIT: usize = 64 << 20;
