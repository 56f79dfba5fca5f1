//! Connections of v2, and the whole of it, before the conformance suite.

use std::io;

use conn_conformance::{
    BoxFuture, Cap, Caps, Clocks, Control, End, MakeMux, Mux, MuxPair, Options, Pair, Side, Target,
    Wire, catalogue, over, run_case, suite,
};
use http::uri::PathAndQuery;
use revdial::v2::PickUps;
use revdial::{Config, Conn, ConnHandle, Dialer, Listener};
use tokio::io::duplex;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{accept_tls, connect_tls, serve_by_hand, serve_with_hyper};

struct Handle {
    handle: ConnHandle,
    local: String,
    peer: String,
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

fn end(conn: Conn) -> End {
    let handle = Handle {
        handle: conn.handle(),
        local: conn.local_addr().to_string(),
        peer: conn.peer_addr().to_string(),
    };
    End::with_control(conn, handle)
}

/// A connection whose transport is this pipe, picked up over a link of its own.
async fn pair_over<S, T>(ours: S, theirs: T) -> io::Result<Pair>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let pick_ups = PickUps::new();
    let (a, b) = duplex(1024);
    let path = PathAndQuery::from_static("/revdial");
    let dialer = Dialer::v2(a, &pick_ups, path, Config::default());
    let theirs = std::sync::Mutex::new(Some(theirs));
    let connect = move || {
        let theirs = theirs.lock().unwrap().take();
        async { theirs.ok_or_else(|| io::ErrorKind::AddrInUse.into()) }
    };
    let mut listener = Listener::v2(b, connect, Config::default());
    let mut server = JoinSet::new();
    server.spawn(serve_by_hand(ours, pick_ups));
    let accepting = async { Ok::<_, io::Error>(listener.accept().await?) };
    let dialing = async { Ok::<_, io::Error>(dialer.dial().await?) };
    let (dialed, accepted) = tokio::try_join!(dialing, accepting)?;
    Ok(Pair::of(end(dialed), end(accepted)).keep((dialer, listener, server)))
}

async fn in_memory() -> io::Result<Pair> {
    let (a, b) = duplex(64 * 1024);
    pair_over(a, b).await
}

async fn tls_over(a: Wire, b: Wire) -> io::Result<Pair> {
    let (a, b) = tokio::try_join!(accept_tls(a), connect_tls(b))?;
    pair_over(a, b).await
}

const PLAIN: Caps = Caps::of(&[
    Cap::Addresses,
    Cap::CloseHandle,
    Cap::Deadlines,
    Cap::HalfClose,
    Cap::InMemory,
]);

const TLS: Caps = PLAIN
    .with(Cap::FlushOnWire)
    .with(Cap::Layered)
    .with(Cap::ResetHandle)
    .with(Cap::ResetVisible)
    .bounded(512 * 1024);

suite!(direct_in_memory, in_memory, PLAIN.bounded(128 * 1024));
suite!(direct_over_tls, over(tls_over), TLS);

/// The whole: a control connection and an HTTP server over TLS, in memory.
struct V2;

impl MakeMux for V2 {
    fn side(&self, _: Wire, _: Side) -> BoxFuture<'_, io::Result<Box<dyn Mux>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn make(&self) -> BoxFuture<'_, io::Result<MuxPair>> {
        Box::pin(async {
            let pick_ups = PickUps::new();
            let (a, b) = duplex(64 * 1024);
            let (a, b) = tokio::try_join!(accept_tls(a), connect_tls(b))?;
            let mut config = Config::default();
            config.max_inbound_streams = STREAMS;
            let path = PathAndQuery::from_static("/revdial");
            let dialer = Dialer::v2(a, &pick_ups, path, config.clone());
            let connect = move || {
                let pick_ups = pick_ups.clone();
                let (ours, theirs) = duplex(64 * 1024);
                tokio::spawn(async move {
                    if let Ok(stream) = accept_tls(theirs).await {
                        serve_with_hyper(stream, pick_ups).await;
                    }
                });
                connect_tls(ours)
            };
            let listener = Listener::v2(b, connect, config);
            let server = Accepting(Mutex::new(listener));
            Ok(MuxPair::new(Box::new(Dialing(dialer)), Box::new(server)))
        })
    }
}

struct Dialing(Dialer);

impl Mux for Dialing {
    fn open(&self) -> BoxFuture<'_, io::Result<End>> {
        Box::pin(async { Ok(end(self.0.dial().await?)) })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Option<End>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

struct Accepting(Mutex<Listener>);

impl Mux for Accepting {
    fn open(&self) -> BoxFuture<'_, io::Result<End>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Option<End>>> {
        Box::pin(async { Ok(Some(end(self.0.lock().await.accept().await?))) })
    }
}

fn revdial_v2() -> Target {
    let caps = TLS.without(Cap::FlushOnWire).without(Cap::Layered);
    Target::mux("revdial-v2", V2, caps.max_streams(STREAMS))
}

/// Runs the cases that `wanted` picks.
fn run(wanted: impl Fn(&str) -> bool) {
    let target = revdial_v2();
    let mut options = Options::default();
    options.clocks = Clocks::Virtual;
    let mut failures = String::new();
    for case in catalogue().filter(|case| wanted(case.id)) {
        let outcome = run_case(&target, case, &options).outcome;
        if let conn_conformance::Outcome::Failed(_) = outcome {
            let detail = outcome.detail().unwrap_or_default();
            failures.push_str(&format!("{}: {detail}\n", case.id));
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// Only the dialer opens connections, in every dialect of revdial.
const BOTH_OPEN: &str = "mux.both_open_simultaneously";

/// Two thousand handshakes take their time.
const STORM: &str = "mux.open_close_storm";

#[test]
fn the_whole_over_tls_keeps_its_promises() {
    run(|id| ![BOTH_OPEN, STORM].contains(&id));
}

#[test]
#[ignore = "two thousand TLS handshakes"]
fn the_whole_over_tls_stands_a_storm() {
    run(|id| id == STORM);
}

/// The connections of one link: more than a case wants to wait, and few handshakes.
const STREAMS: usize = 60;
