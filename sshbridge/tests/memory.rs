//! What connections and channels hold of the heap. Every test runs on a thread of its own, whose bytes it counts: those of
//! both clients and servers, so that what a gateway adds is a difference.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "tests look at what they are about"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use sshbridge::auth::Machine;
use sshbridge::server::Server;

#[path = "bridge/support.rs"]
#[expect(dead_code, reason = "the tests of the bridge use the rest")]
mod support;

use support::{backend_to, config, log_in, read_out, server, server_with, within};

/// A gateway in front of a machine that speaks SSH.
fn bridge() -> Server {
    let machine = Machine::new("far", Arc::new(backend_to(&server(), 64 << 10)));
    server_with(config(), machine)
}

/// Bytes for each of a few idle connections with a session on which a command waits.
async fn idle(server: &Server) -> isize {
    let mut kept = Vec::with_capacity(CONNECTIONS);
    let mut before = 0;
    // What is made once for all is made with the first.
    for number in 0..=CONNECTIONS {
        let client = log_in(server).await;
        let channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "cat").await.unwrap();
        settle().await;
        kept.push((client, channel));
        if number == 0 {
            before = held();
        }
    }
    let bytes = held() - before;
    bytes / CONNECTIONS as isize
}

#[tokio::test]
async fn an_idle_session_costs_a_gateway_320_kibibytes_of_heap_at_most() {
    within(async {
        let straight = idle(&server()).await;
        let bridged = idle(&bridge()).await;
        // A leg has a buffer of 32 KiB to read into; the rest is the pipe to the machine, 64 KiB each way, and what russh
        // and the channels hold.
        let gateway = bridged - straight;
        assert!(gateway < 320 << 10, "{gateway} bytes");
    })
    .await;
}

#[tokio::test]
async fn a_command_that_reads_nothing_holds_a_bounded_part_of_what_it_is_sent() {
    within(async {
        for server in [server(), bridge()] {
            let client = log_in(&server).await;
            let stalled = client.channel_open_session().await.unwrap();
            stalled.exec(true, "deaf").await.unwrap();
            let (_unread, writer) = stalled.split();
            settle().await;
            let before = held();
            let mut sent = 0;
            let block = vec![0; 32 << 10];
            let flood = async {
                loop {
                    writer.data_bytes(block.clone()).await.unwrap();
                    sent += block.len();
                }
            };
            let standstill = std::time::Duration::from_secs(1);
            let _ = tokio::time::timeout(standstill, flood).await;
            let bytes = held() - before;
            // An inbox, the windows around it and the pipes, of a gateway and of what is behind it.
            assert!(sent < 16 << 20, "{sent} bytes were taken");
            assert!(bytes < 16 << 20, "{bytes} bytes are held");
        }
    })
    .await;
}

#[tokio::test]
async fn a_closed_channel_leaves_less_than_4_kib() {
    within(async {
        let server = server();
        let client = log_in(&server).await;
        let mut before = 0;
        for number in 0..=CHANNELS {
            let mut channel = client.channel_open_session().await.unwrap();
            channel.exec(true, "exit 0").await.unwrap();
            assert_eq!(read_out(&mut channel).await.status, Some(0));
            if number == 0 {
                before = held();
            }
        }
        settle().await;
        let each = (held() - before) / CHANNELS as isize;
        assert!(each < 4 << 10, "{each} bytes are left of each");
    })
    .await;
}

/// Lets every task run until all of them wait.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

const CONNECTIONS: usize = 16;

const CHANNELS: usize = 1000;

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
    let _ = HELD.try_with(|held| held.set(held.get().wrapping_add(change)));
}

fn size(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-size(layout.size()));
        // SAFETY: the caller keeps the promises of `dealloc`, and `System` made the block.
        unsafe { System.dealloc(pointer, layout) }
    }
}
