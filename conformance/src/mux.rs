//! Multiplexers: several streams over one connection.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::pair::{BoxFuture, End, MakePair, Pair, Stop, Wire, pipe};

/// Makes sessions of the multiplexer under test.
pub trait MakeMux: Send + Sync + 'static {
    /// Makes one side of a session over a byte pipe. The task that drives it, if any, ends when the session is
    /// dropped.
    fn side(&self, wire: Wire, side: Side) -> BoxFuture<'_, io::Result<Box<dyn Mux>>>;

    /// Makes both sides of a session. Over a byte pipe in memory, unless the multiplexer brings its own transport.
    fn make(&self) -> BoxFuture<'_, io::Result<MuxPair>> {
        let (a, b) = pipe();
        self.make_over(a, b)
    }

    /// Makes both sides over the two ends of a byte pipe.
    fn make_over(&self, a: Wire, b: Wire) -> BoxFuture<'_, io::Result<MuxPair>> {
        Box::pin(async move {
            let (client, server) =
                tokio::try_join!(self.side(a, Side::Client), self.side(b, Side::Server))?;
            Ok(MuxPair::new(client, server))
        })
    }

    /// The frames of the wire, where the multiplexer has a wire of frames: for the cases that slip one in. Claim
    /// [`Cap::Frames`](crate::Cap::Frames) with it.
    fn frames(&self) -> Option<&dyn Frames> {
        None
    }
}

/// Reads and writes the frames of a multiplexer's wire.
pub trait Frames: Send + Sync + 'static {
    /// The frame at the head of `bytes`, or `None` while its header is incomplete.
    fn parse(&self, bytes: &[u8]) -> Option<Frame>;

    /// A frame of this kind that concerns the session and not a stream, or `None` where the wire has none.
    fn encode(&self, kind: FrameKind) -> Option<Vec<u8>>;
}

/// One frame of a wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Frame {
    /// What it says.
    pub kind: FrameKind,
    /// The stream that it concerns, 0 for the session.
    pub stream: u64,
    /// The bytes that it takes on the wire.
    pub len: usize,
}

impl Frame {
    /// A frame of `len` bytes, its header included.
    pub fn new(kind: FrameKind, stream: u64, len: usize) -> Self {
        Self { kind, stream, len }
    }
}

/// What a frame says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FrameKind {
    /// It carries bytes of a stream.
    Data,
    /// It ends one direction of a stream.
    Finish,
    /// It announces that no more streams may be opened.
    GoAway,
    /// It opens a stream.
    Open,
    /// Something else.
    Other,
    /// It asks for a sign of life.
    Ping,
    /// It is one.
    Pong,
    /// It ends a stream as a failure.
    Reset,
}

/// Which end of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a session has two ends")]
pub enum Side {
    /// The one that connected.
    Client,
    /// The one that accepted.
    Server,
}

/// One side of a session. Streams may be opened from both sides where [`Cap::BothOpen`](crate::Cap::BothOpen) is
/// claimed, by the client alone otherwise.
pub trait Mux: Send + Sync + 'static {
    /// Opens a stream to the peer.
    fn open(&self) -> BoxFuture<'_, io::Result<End>>;

    /// Waits for a stream that the peer opens. `None` after the session has ended in good order.
    fn accept(&self) -> BoxFuture<'_, io::Result<Option<End>>>;

    /// Sends a ping and waits for its answer.
    fn ping(&self) -> BoxFuture<'_, io::Result<Duration>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    /// Tells the peer to open no more streams. The open ones go on.
    fn go_away(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    /// Ends the session and every stream in it.
    fn close(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

/// Both sides of one session.
#[non_exhaustive]
pub struct MuxPair {
    /// The side that connected.
    pub client: Arc<dyn Mux>,
    /// The side that accepted.
    pub server: Arc<dyn Mux>,
    /// Held until the case is over.
    pub stop: Stop,
}

impl MuxPair {
    /// Both sides of one session.
    pub fn new(client: Box<dyn Mux>, server: Box<dyn Mux>) -> Self {
        Self {
            client: Arc::from(client),
            server: Arc::from(server),
            stop: Stop::default(),
        }
    }
}

impl fmt::Debug for MuxPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MuxPair").finish_non_exhaustive()
    }
}

/// Shows each fresh session as a pair of connections: one stream, opened by the client.
#[derive(Clone)]
pub(crate) struct OneStream(pub(crate) Arc<dyn MakeMux>);

impl MakePair for OneStream {
    fn make(&self) -> BoxFuture<'_, io::Result<Pair>> {
        Box::pin(async { one_stream(self.0.make().await?).await })
    }

    fn make_over(&self, a: Wire, b: Wire) -> BoxFuture<'_, io::Result<Pair>> {
        Box::pin(async { one_stream(self.0.make_over(a, b).await?).await })
    }
}

async fn one_stream(session: MuxPair) -> io::Result<Pair> {
    let open = async {
        let mut a = session.client.open().await?;
        // Some multiplexers announce a stream with its first write only. Others fail it, at which `io.zero_write` looks.
        let _ = a.write(&[]).await;
        a.flush().await?;
        Ok(a)
    };
    let (a, b) = tokio::try_join!(open, session.server.accept())?;
    let b = b.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok(Pair::of(a, b).keep(session))
}
