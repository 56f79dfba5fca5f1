//! What a hostile peer can make this side hold, counted in bytes of heap, and what it can make it compute.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use revdial::frame::{Flags, Header, INITIAL_WINDOW, StreamId};
use revdial::session::{Role, Session};
use revdial::{Config, Dialer, Listener};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

/// The system's allocator, with a count of what each thread holds.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn held() -> isize {
    HELD.with(Cell::get)
}

fn count(change: isize) {
    // A thread that is ending has no locals any more, and nobody measures it.
    let _ = HELD.try_with(|held| held.set(held.get() + change));
}

fn size(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call is passed on to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-size(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(size(new_size) - size(layout.size()));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

const STREAMS: u32 = 8;

fn config() -> Config {
    let mut config = Config::default();
    config.max_inbound_streams = STREAMS as usize;
    config.growth_budget = 1024 * 1024;
    config
}

fn id(value: u32) -> StreamId {
    StreamId::new(value).unwrap()
}

fn data(stream: u32, flags: Flags, length: u32) -> Vec<u8> {
    let id = id(stream);
    let mut bytes = Header::Data { id, flags, length }.encode().to_vec();
    bytes.resize(bytes.len() + length as usize, 7);
    bytes
}

fn update(stream: u32, flags: Flags, delta: u32) -> Vec<u8> {
    let id = id(stream);
    Header::WindowUpdate { id, flags, delta }.encode().to_vec()
}

/// Opens every stream and fills its window with frames of one size.
fn full_windows(length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for stream in (1..2 * STREAMS).step_by(2) {
        bytes.extend(update(stream, Flags::SYN, 0));
    }
    // All windows grow together: nobody's buffer is finished early.
    for _ in 0..INITIAL_WINDOW / length {
        for stream in (1..2 * STREAMS).step_by(2) {
            bytes.extend(data(stream, Flags::NONE, length));
        }
    }
    bytes
}

/// What provokes answers, tombstones, refusals and events.
fn storm() -> Vec<u8> {
    let mut bytes = Vec::new();
    for stream in (1..40_000).step_by(2) {
        bytes.extend(update(stream, Flags::SYN, 0));
        bytes.extend(data(stream, Flags::NONE, 3));
        bytes.extend(Header::Ping { nonce: stream }.encode());
        bytes.extend(Header::Pong { nonce: stream }.encode());
        bytes.extend(update(stream, Flags::RST, 0));
        bytes.extend(data(stream, Flags::FIN, 0));
    }
    bytes
}

/// The most that a session held while it took `bytes` in pieces, its answers being sent now and then.
fn session_peak(bytes: &[u8], piece: usize) -> isize {
    let now = now();
    let before = held();
    let mut session = Session::new(Role::Listener, config(), now, 0);
    let mut peak = 0;
    for piece in bytes.chunks(piece) {
        session.handle_input(now, piece);
        peak = peak.max(held() - before);
        while session.poll_event().is_some() {}
        while let Some(frame) = session.poll_transmit(now, usize::MAX) {
            session.handle_flushed(frame.ticket());
        }
    }
    assert!(session.closed().is_none(), "{:?}", session.closed());
    peak
}

#[expect(
    clippy::disallowed_methods,
    reason = "where the clock begins does not matter"
)]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn a_session_holds_no_more_than_its_budget_whatever_the_peer_sends() {
    let budget = size(config().receive_budget() + 64 * 1024);
    for length in [1, 13, 700, 5_000, 16_384, 131_072] {
        let peak = session_peak(&full_windows(length), 64 * 1024);
        println!("windows full of frames of {length} bytes: {peak}");
        assert!(peak <= budget, "{peak} bytes for frames of {length}");
        assert!(peak >= size((STREAMS * (INITIAL_WINDOW - length)) as usize));
    }
    let peak = session_peak(&storm(), 4 * 1024);
    println!("storm: {peak}");
    assert!(peak <= 128 * 1024, "{peak} bytes for nothing");
}

#[test]
fn a_session_computes_in_proportion_to_the_bytes_it_gets() {
    /// The least processor time of some runs.
    fn cost(bytes: &[u8]) -> Duration {
        let run = || {
            let before = clock_gettime(ClockId::ThreadCPUTime);
            session_peak(bytes, 16 * 1024);
            let after = clock_gettime(ClockId::ThreadCPUTime);
            let nanos =
                (after.tv_sec - before.tv_sec) * 1_000_000_000 + after.tv_nsec - before.tv_nsec;
            Duration::from_nanos(u64::try_from(nanos).unwrap())
        };
        (0..5).map(|_| run()).min().unwrap()
    }
    let mut refused = Vec::new();
    for stream in (1..2 * STREAMS).step_by(2) {
        refused.extend(update(stream, Flags::SYN, 0));
    }
    for stream in (101..40_000).step_by(2) {
        refused.extend(update(stream, Flags::SYN, 0));
        refused.extend(data(stream, Flags::NONE, 1));
    }
    for (name, bytes) in [
        ("storm", storm()),
        ("refused", refused),
        ("small frames", full_windows(8)),
    ] {
        // The frames of a quarter end at the same byte of every repeated part.
        let part = bytes.len() / 4;
        let (short, long) = (cost(&bytes[..part]), cost(&bytes));
        println!("{name}: {short:?} for {part} bytes, {long:?} for four times as many");
        assert!(long < 8 * short, "{name}: {short:?}, then {long:?}");
    }
}

// Buffers that are idle for a second are given up: with the clock of the machine a pause of it would count.
#[tokio::test(start_paused = true)]
async fn a_link_holds_no_more_than_its_budget_and_its_read_buffer() {
    let wire = full_windows(700);
    let (mut peer, transport) = duplex(64 * 1024);
    let before = held();
    let listener = Listener::new(transport, config());
    let mut peak = 0;
    for piece in wire.chunks(32 * 1024) {
        peer.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
        peak = peak.max(held() - before);
    }
    let mut acks = vec![0; 12 * STREAMS as usize];
    peer.read_exact(&mut acks).await.unwrap();
    let buffers = 256 * 1024 + 64 * 1024;
    let budget = size(config().receive_budget() + buffers + 64 * 1024);
    println!("a link over a pipe: {peak}");
    assert!(peak <= budget, "{peak} bytes");
    drop(listener);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_connections_leave_nothing_behind() {
    let (a, b) = duplex(64 * 1024);
    let dialer = Dialer::new(a, Config::default());
    let mut listener = Listener::new(b, Config::default());
    let mut cycle = async |count: usize| {
        for round in 0..count {
            let (ours, theirs) = tokio::join!(dialer.dial(), listener.accept());
            let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
            ours.write_all(b"x").await.unwrap();
            assert_eq!(theirs.read_u8().await.unwrap(), b'x');
            if round % 2 == 0 {
                ours.shutdown().await.unwrap();
                theirs.shutdown().await.unwrap();
                assert_eq!(ours.read(&mut [0]).await.unwrap(), 0);
                assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
            }
        }
        // Late resets pass.
        dialer.ping().await.unwrap();
        listener.ping().await.unwrap();
    };
    // As many as make the tombstones full.
    cycle(2_500).await;
    let before = held();
    cycle(10_000).await;
    let kept = held() - before;
    assert!(kept < 4 * 1024, "{kept} bytes are kept");
}
