//! What `conn-conformance` asks of a multiplexer, one test for each of its cases, over a byte pipe in memory.

use std::future::poll_fn;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use conn_conformance::reference::YamuxFrames;
use conn_conformance::{
    BoxFuture, Cap, Caps, Control, CountingAllocator, End, Frames, MakeMux, Mux, Side, Wire, suite,
};
use revdial::{CloseReason, Config, Conn, ConnHandle, Dialer, Listener};
use tokio::time::Instant;

/// The cases about memory count with it.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What Go's wire of 2015 has: no resets, no windows, no pings.
const CLAIMED_BY_V1: Caps = Caps::of(&[
    Cap::Addresses,
    Cap::CloseHandle,
    Cap::CutVisible,
    Cap::Deadlines,
    Cap::FlushOnWire,
    Cap::HalfClose,
    Cap::InMemory,
    Cap::Layered,
    Cap::OneConnection,
    Cap::ReentrantWake,
    Cap::SessionClose,
    Cap::Vectored,
    Cap::Yields,
]);

const V1: Links = Links {
    dialer: Dialer::v1,
    listener: Listener::v1,
};

suite!(mux v1, V1, CLAIMED_BY_V1.bounded(704 * 1024));

const V3: Links = Links {
    dialer: Dialer::new,
    listener: Listener::new,
};

suite!(
    mux v3,
    V3,
    CLAIMED_BY_V1
        .with(Cap::Frames)
        .with(Cap::GoAway)
        .with(Cap::PeerGone)
        .with(Cap::Ping)
        .with(Cap::ResetHandle)
        .with(Cap::ResetVisible)
    .bounded(640 * 1024)
    .max_streams(STREAMS)
);

/// The connections that one link carries at a time.
const STREAMS: usize = 64;

/// One dialect: how a link is made at each end of its transport.
struct Links {
    dialer: fn(Wire, Config) -> Dialer,
    listener: fn(Wire, Config) -> Listener,
}

impl MakeMux for Links {
    fn side(&self, wire: Wire, side: Side) -> BoxFuture<'_, io::Result<Box<dyn Mux>>> {
        Box::pin(async move {
            let mut config = Config::default();
            config.max_inbound_streams = STREAMS;
            Ok(match side {
                Side::Client => Box::new(Dialing((self.dialer)(wire, config))) as Box<dyn Mux>,
                Side::Server => Box::new(Listening(Mutex::new((self.listener)(wire, config)))),
            })
        })
    }

    fn frames(&self) -> Option<&dyn Frames> {
        Some(&YamuxFrames)
    }
}

struct Dialing(Dialer);

impl Mux for Dialing {
    fn open(&self) -> BoxFuture<'_, io::Result<End>> {
        Box::pin(async { self.0.dial().await.map(end).map_err(io::Error::other) })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Option<End>>> {
        Box::pin(async { ended(self.0.closed().await) })
    }

    fn ping(&self) -> BoxFuture<'_, io::Result<Duration>> {
        Box::pin(async { self.0.ping().await.map_err(io::Error::other) })
    }

    fn close(&self) -> BoxFuture<'_, io::Result<()>> {
        self.0.close();
        Box::pin(async { Ok(()) })
    }
}

struct Listening(Mutex<Listener>);

impl Mux for Listening {
    fn open(&self) -> BoxFuture<'_, io::Result<End>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Option<End>>> {
        Box::pin(async {
            let accepted = poll_fn(|cx| {
                let mut listener = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                listener.poll_accept(cx)
            });
            match accepted.await {
                Ok(conn) => Ok(Some(end(conn))),
                Err(reason) => ended(reason),
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, io::Result<()>> {
        let listener = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listener.close();
        Box::pin(async { Ok(()) })
    }
}

/// No connection any more, because of a goodbye or because of a failure.
fn ended(reason: CloseReason) -> io::Result<Option<End>> {
    if matches!(reason, CloseReason::PeerClosed) {
        return Ok(None);
    }
    Err(io::Error::other(reason))
}

fn end(conn: Conn) -> End {
    let control = Handle {
        local: conn.local_addr().to_string(),
        peer: conn.peer_addr().to_string(),
        handle: conn.handle(),
    };
    End::with_control(conn, control)
}

struct Handle {
    local: String,
    peer: String,
    handle: ConnHandle,
}

impl Control for Handle {
    fn close(&self) {
        self.handle.close();
    }

    fn reset(&self) {
        self.handle.reset(0);
    }

    fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.handle.set_read_deadline(deadline);
    }

    fn set_write_deadline(&self, deadline: Option<Instant>) {
        self.handle.set_write_deadline(deadline);
    }

    fn local_addr(&self) -> Option<String> {
        Some(self.local.clone())
    }

    fn peer_addr(&self) -> Option<String> {
        Some(self.peer.clone())
    }
}
