//! The suite run on transports that must pass it.

use conn_conformance::reference::{
    REFERENCE_CAPACITY, SESSION_BOUND, SESSION_STREAMS, record, reference, sessions,
};
use conn_conformance::{
    Cap, Caps, CountingAllocator, Deadlined, End, Over, Pair, Wire, over, suite,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

async fn duplex() -> std::io::Result<Pair> {
    let (a, b) = tokio::io::duplex(4096);
    Ok(Pair::new(a, b))
}

suite!(
    tokio_duplex,
    duplex,
    Caps::of(&[Cap::HalfClose, Cap::InMemory, Cap::PeerGone]).bounded(4096)
);

async fn perfect() -> std::io::Result<Pair> {
    Ok(reference())
}

suite!(
    reference_pair,
    perfect,
    Caps::of(&[
        Cap::Addresses,
        Cap::CloseHandle,
        Cap::Deadlines,
        Cap::HalfClose,
        Cap::InMemory,
        Cap::PeerGone,
        Cap::ReentrantWake,
        Cap::ResetHandle,
        Cap::ResetVisible,
        Cap::Vectored,
    ])
    .bounded(REFERENCE_CAPACITY)
);

type Made = std::future::Ready<std::io::Result<Pair>>;

fn records() -> Over<impl Fn(Wire, Wire) -> Made + Send + Sync + 'static> {
    over(|a, b| std::future::ready(Ok(Pair::new(record(a), record(b)))))
}

suite!(
    record_layer,
    records(),
    Caps::of(&[
        Cap::CutVisible,
        Cap::FlushOnWire,
        Cap::HalfClose,
        Cap::InMemory,
        Cap::Layered,
        Cap::PeerGone,
        Cap::ResetVisible,
    ])
    .bounded(256 * 1024)
);

suite!(
    mux reference_session,
    sessions(),
    Caps::of(&[
        Cap::BothOpen,
        Cap::CutVisible,
        Cap::FlushOnWire,
        Cap::Frames,
        Cap::GoAway,
        Cap::HalfClose,
        Cap::InMemory,
        Cap::Layered,
        Cap::OneConnection,
        Cap::PeerGone,
        Cap::Ping,
        Cap::ReentrantWake,
        Cap::ResetVisible,
        Cap::SessionClose,
        Cap::Yields,
    ])
    .bounded(SESSION_BOUND)
    .max_streams(SESSION_STREAMS)
);

async fn deadlined() -> std::io::Result<Pair> {
    let (a, b) = tokio::io::duplex(4096);
    let (a, b) = (Deadlined::new(a), Deadlined::new(b));
    let (ca, cb) = (a.control(), b.control());
    Ok(Pair::of(End::with_control(a, ca), End::with_control(b, cb)))
}

suite!(
    deadlined_duplex,
    deadlined,
    Caps::of(&[
        Cap::CloseHandle,
        Cap::Deadlines,
        Cap::HalfClose,
        Cap::InMemory,
        Cap::PeerGone
    ])
);
