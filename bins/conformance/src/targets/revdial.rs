//! Reverse connections of ours: a dialect, and what carries its link.

mod v2;

use std::future::poll_fn;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use conn_conformance::reference::YamuxFrames;
use conn_conformance::{
    BoxFuture, Cap, Caps, Control, End, Frames, MakeMux, Mux, MuxPair, Side, Target, Wire,
};
use revdial::{CloseReason, Config, Conn, ConnHandle, DialError, Dialer, Listener};
use tokio::time::Instant;

use super::layered::{Trust, trust};
use super::plain::tcp_streams;

pub(crate) use self::v2::v2;

/// What the third dialect claims wherever its link runs.
const V3: Caps = Caps::of(&[
    Cap::Addresses,
    Cap::CloseHandle,
    Cap::Deadlines,
    Cap::FlushOnWire,
    Cap::HalfClose,
    Cap::OneConnection,
    Cap::PeerGone,
    Cap::Ping,
    Cap::ReentrantWake,
    Cap::ResetHandle,
    Cap::ResetVisible,
    Cap::SessionClose,
    Cap::Vectored,
    Cap::Yields,
])
.max_streams(STREAMS);

/// What Go's wire of 2015 lets the first dialect claim: no resets, no windows, no pings.
const V1: Caps = Caps::of(&[
    Cap::Addresses,
    Cap::CloseHandle,
    Cap::Deadlines,
    Cap::FlushOnWire,
    Cap::HalfClose,
    Cap::OneConnection,
    Cap::ReentrantWake,
    Cap::SessionClose,
    Cap::Vectored,
    Cap::Yields,
])
.bounded(V1_BOUND);

/// What a link over the suite's byte pipes adds.
const IN_MEMORY: Caps = Caps::of(&[Cap::CutVisible, Cap::InMemory, Cap::Layered]);

/// The first dialect over a byte pipe.
pub(crate) fn v1() -> Target {
    let caps = V1.and(IN_MEMORY);
    target("revdial-v1", dialect_v1(), Carrier::Plain, caps)
}

/// The first dialect over TLS over a byte pipe.
pub(crate) fn v1_tls() -> Target {
    let carrier = Carrier::Tls(trust().map_err(|error| error.to_string()));
    target("revdial-v1-tls", dialect_v1(), carrier, V1.and(IN_MEMORY))
}

/// The third dialect over a byte pipe.
pub(crate) fn v3() -> Target {
    let caps = V3.and(IN_MEMORY).with(Cap::Frames).with(Cap::GoAway);
    target(
        "revdial-v3",
        dialect_v3(),
        Carrier::Plain,
        caps.bounded(BOUND),
    )
}

/// The third dialect over TCP on the loopback interface.
pub(crate) fn v3_tcp() -> Target {
    target("revdial-v3-tcp", dialect_v3(), Carrier::Tcp, V3)
}

/// The third dialect over TLS over a byte pipe.
pub(crate) fn v3_tls() -> Target {
    let carrier = Carrier::Tls(trust().map_err(|error| error.to_string()));
    let caps = V3.and(IN_MEMORY).bounded(BOUND);
    target("revdial-v3-tls", dialect_v3(), carrier, caps)
}

fn target(name: &str, dialect: Dialect, carrier: Carrier, caps: Caps) -> Target {
    Target::mux(name, Reverse { dialect, carrier }, caps)
}

/// How a link is made at each end of its transport.
#[derive(Clone, Copy)]
struct Dialect {
    dialer: fn(Wire, Config) -> Dialer,
    listener: fn(Wire, Config) -> Listener,
}

fn dialect_v1() -> Dialect {
    Dialect {
        dialer: Dialer::v1,
        listener: Listener::v1,
    }
}

fn dialect_v3() -> Dialect {
    Dialect {
        dialer: Dialer::new,
        listener: Listener::new,
    }
}

/// What the link runs over.
enum Carrier {
    Plain,
    Tcp,
    Tls(Result<Trust, String>),
}

struct Reverse {
    dialect: Dialect,
    carrier: Carrier,
}

impl MakeMux for Reverse {
    fn side(&self, wire: Wire, side: Side) -> BoxFuture<'_, io::Result<Box<dyn Mux>>> {
        Box::pin(async move {
            let wire = match &self.carrier {
                Carrier::Plain | Carrier::Tcp => wire,
                Carrier::Tls(trust) => {
                    let trust = trust.clone().map_err(io::Error::other)?;
                    trust.handshake(wire, side).await?
                }
            };
            let mut config = Config::default();
            config.max_inbound_streams = STREAMS;
            Ok(match side {
                Side::Client => {
                    Box::new(DialingSide((self.dialect.dialer)(wire, config))) as Box<dyn Mux>
                }
                Side::Server => Box::new(AcceptingSide {
                    listener: Mutex::new((self.dialect.listener)(wire, config)),
                    turn: tokio::sync::Mutex::default(),
                }),
            })
        })
    }

    fn make(&self) -> BoxFuture<'_, io::Result<MuxPair>> {
        if !matches!(self.carrier, Carrier::Tcp) {
            let (a, b) = tokio::io::duplex(PIPE);
            return self.make_over(Box::new(a), Box::new(b));
        }
        Box::pin(async {
            let (a, b) = tcp_streams().await?;
            self.make_over(Box::new(a), Box::new(b)).await
        })
    }

    fn frames(&self) -> Option<&dyn Frames> {
        Some(&YamuxFrames)
    }
}

struct DialingSide(Dialer);

impl Mux for DialingSide {
    fn open(&self) -> BoxFuture<'_, io::Result<End>> {
        Box::pin(async {
            let dialed = self.0.dial().await;
            dialed.map(end).map_err(dial_error)
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Option<End>>> {
        Box::pin(async { Err(closed(&self.0.closed().await)) })
    }

    fn ping(&self) -> BoxFuture<'_, io::Result<Duration>> {
        Box::pin(async { self.0.ping().await.map_err(io::Error::other) })
    }

    fn close(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async {
            self.0.close();
            Ok(())
        })
    }
}

struct AcceptingSide {
    listener: Mutex<Listener>,
    /// A listener has one waiter at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Mux for AcceptingSide {
    fn open(&self) -> BoxFuture<'_, io::Result<End>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Option<End>>> {
        Box::pin(async {
            let _turn = self.turn.lock().await;
            let accepted = poll_fn(|cx| {
                let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
                listener.poll_accept(cx)
            });
            match accepted.await {
                Ok(conn) => Ok(Some(end(conn))),
                Err(CloseReason::PeerClosed) => Ok(None),
                Err(reason) => Err(closed(&reason)),
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async {
            let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
            listener.close();
            Ok(())
        })
    }
}

fn dial_error(error: DialError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, error)
}

fn closed(reason: &CloseReason) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, reason.clone())
}

fn end(conn: Conn) -> End {
    let control = ConnControl {
        handle: conn.handle(),
        local: conn.local_addr().to_string(),
        peer: conn.peer_addr().to_string(),
    };
    End::with_control(conn, control)
}

struct ConnControl {
    handle: ConnHandle,
    local: String,
    peer: String,
}

impl Control for ConnControl {
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

/// The connections that one link carries at a time.
const STREAMS: usize = 64;

/// What a socket holds.
const PIPE: usize = 64 * 1024;

/// The unread bytes of one direction: 256 KiB of window, 64 KiB that wait for the transport, 64 KiB in it, and one batch of
/// the driver's.
const BOUND: usize = 640 * 1024;

/// Without windows, 256 KiB unread is where reading pauses, and the last frame may go 64 KiB beyond it.
const V1_BOUND: usize = BOUND + 64 * 1024;
