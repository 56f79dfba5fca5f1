//! What the gateway costs, without processes and sockets: see the README beside this file.

#![expect(clippy::unwrap_used, reason = "a step that fails ends the measurement")]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures are printed"
)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the helpers look at what they are about"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sshbridge::auth::Machine;
use sshbridge::backend::{Backend as _, BackendChannel, ChannelEvent, ChannelRequest};
use sshbridge::server::Server;
use tokio::task::JoinSet;

#[path = "../tests/bridge/support.rs"]
#[expect(dead_code, reason = "the tests of the bridge use the rest")]
mod support;

use support::{backend_to, config, log_in, read_out, server, server_with};

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let figures = runtime.block_on(async {
        [
            ("handshakes_per_s", handshakes().await),
            ("closed_channel_bytes", closed_channel().await),
            ("idle_session_heap_bytes", idle_session().await),
            ("echo_bridge_vs_server", echo_ratio().await),
        ]
    });
    let mut line = String::new();
    for (name, figure) in figures {
        eprintln!("{name:24} {figure:10.2}");
        line += &format!(
            "{}\"{name}\": {figure:.3}",
            if line.is_empty() { "" } else { ", " }
        );
    }
    println!("{{{line}}}");
}

/// A gateway in front of a machine that speaks SSH.
fn bridge() -> Server {
    let machine = Machine::new("far", Arc::new(backend_to(&server(), PIPE)));
    server_with(config(), machine)
}

/// Connections from the first byte to a login, four at a time, clients included: the median of five rounds.
async fn handshakes() -> f64 {
    let server = server();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let server = server.clone();
            clients.spawn(async move {
                for _ in 0..HANDSHAKES / 4 {
                    drop(log_in(&server).await);
                }
            });
        }
        while clients.join_next().await.transpose().unwrap().is_some() {}
        rounds.push(HANDSHAKES as f64 / started.elapsed().as_secs_f64());
    }
    median(rounds)
}

/// What both ends of a connection keep of a channel that is over.
async fn closed_channel() -> f64 {
    let client = log_in(&server()).await;
    let mut before = 0;
    for number in 0..=CHANNELS {
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "exit 0").await.unwrap();
        assert_eq!(read_out(&mut channel).await.status, Some(0));
        if number == 0 {
            before = held();
        }
    }
    (held() - before) as f64 / CHANNELS as f64
}

/// What a gateway adds to the heap for a session: two legs, against one that needs no gateway.
async fn idle_session() -> f64 {
    let mut each = Vec::new();
    for server in [server(), bridge()] {
        let mut kept = Vec::new();
        let mut before = 0;
        for number in 0..=SESSIONS {
            let client = log_in(&server).await;
            let channel = client.channel_open_session().await.unwrap();
            channel.exec(true, "cat").await.unwrap();
            kept.push((client, channel));
            if number == 0 {
                settle().await;
                before = held();
            }
        }
        settle().await;
        each.push((held() - before) as f64 / SESSIONS as f64);
    }
    each[1] - each[0]
}

/// The speed of an echo through the gateway, over that of the server alone: the median of the rounds' ratios.
async fn echo_ratio() -> f64 {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let straight = echo(&server()).await;
        rounds.push(straight / echo(&bridge()).await);
    }
    median(rounds)
}

async fn echo(server: &Server) -> f64 {
    let conn = backend_to(server, PIPE).connect().await.unwrap();
    let channel = conn.open_session().await.unwrap();
    let exec = ChannelRequest::Exec(Bytes::from_static(b"cat"));
    channel.control.request(exec).await.unwrap();
    let BackendChannel {
        mut sink,
        mut source,
        control: _control,
    } = channel;
    let started = Instant::now();
    let send = async {
        let block = Bytes::from(vec![b'e'; 32 << 10]);
        for _ in 0..ECHO / block.len() {
            sink.data(block.clone()).await.unwrap();
        }
        sink.eof().await.unwrap();
    };
    let receive = async {
        let mut received = 0;
        while let Some(event) = source.next().await {
            if let ChannelEvent::Data(data) = event {
                received += data.len();
            }
        }
        received
    };
    assert_eq!(tokio::join!(send, receive).1, ECHO);
    started.elapsed().as_secs_f64()
}

/// Lets connections that are over come to their end.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

const ROUNDS: usize = 5;
const HANDSHAKES: usize = 400;
const CHANNELS: usize = 10_000;
const SESSIONS: usize = 100;
const ECHO: usize = 64 << 20;
const PIPE: usize = 256 << 10;

/// The system's allocator, with a count of what is held.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static HELD: AtomicIsize = AtomicIsize::new(0);

fn held() -> isize {
    HELD.load(Ordering::Relaxed)
}

fn count(change: isize) {
    HELD.fetch_add(change, Ordering::Relaxed);
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

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-size(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
