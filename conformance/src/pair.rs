//! Pairs of connections: what a transport's author hands to the suite.

use std::any::Any;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Anything that the suite can read, write and move between tasks.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A byte pipe under a transport: what a socket would be in production.
pub type Wire = Box<dyn Io>;

/// A boxed future, so that the traits of this crate can be trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes connected pairs of the transport under test. Every case gets at least one fresh pair.
///
/// A function or closure `Fn() -> impl Future<Output = io::Result<Pair>>` is one; so is [`over`] for a transport that
/// can be built over any byte pipe.
pub trait MakePair: Send + Sync + 'static {
    /// Makes a pair of connected ends.
    fn make(&self) -> BoxFuture<'_, io::Result<Pair>>;

    /// Makes a pair whose first end talks through `a` and whose second talks through `b`. Cases that cut, chop or
    /// stall the transport beneath need it; claim [`Cap::Layered`](crate::Cap::Layered) where it is implemented.
    fn make_over(&self, a: Wire, b: Wire) -> BoxFuture<'_, io::Result<Pair>> {
        drop((a, b));
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

impl<F, Fut> MakePair for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = io::Result<Pair>> + Send + 'static,
{
    fn make(&self) -> BoxFuture<'_, io::Result<Pair>> {
        Box::pin(self())
    }
}

/// A maker for a transport that is built over two byte pipes: `make` receives the two ends of one pipe.
///
/// Where a case asks for no particular pipe, it is [`tokio::io::duplex`] with 64 KiB in each direction.
pub fn over<F, Fut>(make: F) -> Over<F>
where
    F: Fn(Wire, Wire) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = io::Result<Pair>> + Send + 'static,
{
    Over(make)
}

/// The maker that [`over`] returns.
#[derive(Clone, Debug)]
pub struct Over<F>(F);

impl<F, Fut> MakePair for Over<F>
where
    F: Fn(Wire, Wire) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = io::Result<Pair>> + Send + 'static,
{
    fn make(&self) -> BoxFuture<'_, io::Result<Pair>> {
        let (a, b) = pipe();
        Box::pin((self.0)(a, b))
    }

    fn make_over(&self, a: Wire, b: Wire) -> BoxFuture<'_, io::Result<Pair>> {
        Box::pin((self.0)(a, b))
    }
}

/// Two connected byte pipes with [`PIPE_CAPACITY`] in each direction.
pub(crate) fn pipe() -> (Wire, Wire) {
    let (a, b) = tokio::io::duplex(PIPE_CAPACITY);
    (Box::new(a), Box::new(b))
}

/// Two connected ends, and what keeps them alive.
#[derive(Debug)]
#[non_exhaustive]
pub struct Pair {
    /// The end that connected.
    pub a: End,
    /// The end that accepted.
    pub b: End,
    /// Held until the case is over.
    pub stop: Stop,
}

impl Pair {
    /// A pair of two plain streams.
    pub fn new(a: impl Io, b: impl Io) -> Self {
        Self::of(End::new(a), End::new(b))
    }

    /// A pair of two ends.
    pub fn of(a: End, b: End) -> Self {
        Self {
            a,
            b,
            stop: Stop::default(),
        }
    }

    /// Keeps `guard` until the case is over: a listener, a session, a handle that ends a task when it is dropped.
    #[must_use]
    pub fn keep(mut self, guard: impl Send + 'static) -> Self {
        self.stop.0.push(Box::new(guard));
        self
    }
}

/// What a pair needs while a case runs. Dropping it stops whatever serves the pair.
#[derive(Default)]
pub struct Stop(Vec<Box<dyn Any + Send>>);

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.0.len()).finish()
    }
}

/// One end of a pair: a stream, and its control handle where it has one.
pub struct End {
    io: Wire,
    control: Option<Arc<dyn Control>>,
    hold: Option<Box<dyn Any + Send>>,
}

impl End {
    /// A stream without a control handle.
    pub fn new(io: impl Io) -> Self {
        Self {
            io: Box::new(io),
            control: None,
            hold: None,
        }
    }

    /// A stream with a handle that other tasks use while this one reads and writes.
    pub fn with_control(io: impl Io, control: impl Control) -> Self {
        Self {
            io: Box::new(io),
            control: Some(Arc::new(control)),
            hold: None,
        }
    }

    /// Keeps `guard` until the end is dropped: a permit, a count of live streams.
    #[must_use]
    pub fn keep(mut self, guard: impl Send + 'static) -> Self {
        self.hold = Some(Box::new(guard));
        self
    }

    /// The control handle. Without one, a handle that does nothing: cases that need more are skipped by their
    /// capabilities.
    pub fn control(&self) -> Arc<dyn Control> {
        match &self.control {
            Some(control) => Arc::clone(control),
            None => Arc::new(NoControl),
        }
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End").finish_non_exhaustive()
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for End {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// What Go's `net.Conn` can do from any goroutine and `AsyncRead + AsyncWrite` cannot express.
///
/// Implement what the transport has and claim the matching capability; the rest does nothing.
pub trait Control: Send + Sync + 'static {
    /// Ends both directions now. Operations that are pending in any task return an error. Bytes already accepted are
    /// still delivered to the peer.
    fn close(&self) {}

    /// Ends both directions now, as a failure: the peer sees an error.
    fn reset(&self) {}

    /// Lets reads fail with [`TimedOut`](io::ErrorKind::TimedOut) from `deadline` on, pending ones as well. `None`
    /// means never. A deadline in the past takes precedence over data that could be read.
    fn set_read_deadline(&self, deadline: Option<Instant>) {
        let _ = deadline;
    }

    /// Lets writes fail with [`TimedOut`](io::ErrorKind::TimedOut) from `deadline` on, pending ones as well. `None`
    /// means never. A deadline in the past takes precedence over room that could be written to.
    fn set_write_deadline(&self, deadline: Option<Instant>) {
        let _ = deadline;
    }

    /// Our address, as text.
    fn local_addr(&self) -> Option<String> {
        None
    }

    /// The peer's address, as text.
    fn peer_addr(&self) -> Option<String> {
        None
    }
}

/// The handle of an end that has none.
struct NoControl;

impl Control for NoControl {}

/// The room in each direction of a byte pipe that no case is particular about: what a socket buffer holds.
pub(crate) const PIPE_CAPACITY: usize = 64 * 1024;
