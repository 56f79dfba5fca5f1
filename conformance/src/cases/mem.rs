//! Memory. These cases need the suite's [`CountingAllocator`](crate::CountingAllocator).

use std::time::Duration;

use super::mux::{exchange, stream};
use crate::alloc;
use crate::caps::Cap;
use crate::case::page;
use crate::context::{Cx, ensure, receive, send};
use crate::pair::Pair;
use crate::report::Failure;
use crate::step::{CountingWaker, fill};

page! { Mem;
    ALLOC_BOUND = "mem.alloc_bound", "unread bytes take bounded memory" {
        promise: "A connection that is filled while nobody reads allocates no more than four times its bound, and a MiB.",
        source: "CWE-770: allocation without limits",
        bug: "queues of small frames, each with a buffer of its own",
        secs: 30, needs: [Allocator, Bounded], Virtual: alloc_bound,
    }
    IDLE_STREAM = "mem.idle_stream", "an idle stream takes little memory" {
        promise: "A stream that has carried a word each way and is idle holds less than 8 KiB, both ends together.",
        source: "CWE-770: allocation without limits",
        bug: "buffers of 64 KiB for each stream: ten thousand idle ones are a gigabyte",
        secs: 60, needs: [Allocator, Mux, OneConnection], Virtual: idle_stream,
    }
    NO_LEAK = "mem.no_leak_after_n_open_close" alias "mem.no_leak_after_N_open_close", "what is opened and closed is given back" {
        promise: "After ten thousand streams, or five hundred connections, opened, used and dropped, memory is what it was, give or take 64 KiB.",
        source: "CWE-401: memory not released",
        bug: "streams that are remembered for ever (libp2p/rust-yamux#188, fatedier/frp#4802)",
        secs: 60, needs: [Allocator], Virtual: no_leak,
    }
    RETENTION = "mem.retention", "an unread byte is a byte" {
        promise: "Two thousand messages of one byte that came one by one and are not read hold less than a MiB.",
        source: "CWE-770: allocation without limits",
        bug: "a byte that pins the 64 KiB buffer it came in",
        secs: 60, needs: [Allocator], Virtual: retention,
    }
    SMALL_READS = "mem.small_reads", "small messages take little memory" {
        promise: "Ten thousand messages of one byte, each read before the next is sent, keep less than 64 KiB more.",
        source: "CWE-770: allocation without limits",
        bug: "a log line, a counter or a credit for each message, kept for as long as the connection",
        secs: 60, needs: [Allocator], Virtual: small_reads,
    }
}

async fn alloc_bound(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        b: _b,
        stop: _stop,
    } = cx.pair().await?;
    let waker = CountingWaker::new();
    let before = alloc::held();
    alloc::mark();
    fill(&cx, &mut a, &waker).await?;
    let more = alloc::peak() - before;
    let bound = isize::try_from(cx.caps().bound()).unwrap_or(isize::MAX / 8);
    ensure(
        more <= 4 * bound + (1 << 20),
        format!("at most {} bytes allocated", 4 * bound + (1 << 20)),
        format!("{more}"),
    )
}

async fn idle_stream(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    let limit = cx.caps().stream_limit();
    let count = if limit == 0 { 50 } else { limit.min(50) };
    // The first one pays for what all share.
    let (mut a, mut b) = stream(&session).await?;
    exchange(&mut a, &mut b).await?;
    drop((a, b));
    cx.settle().await;
    let mut streams = Vec::with_capacity(count);
    let before = alloc::held();
    for i in 0..count {
        cx.step(format!("opening and using idle stream {i}"));
        let (mut a, mut b) = stream(&session).await?;
        exchange(&mut a, &mut b).await?;
        streams.push((a, b));
    }
    cx.settle().await;
    let each = (alloc::held() - before) / isize::try_from(count).unwrap_or(1);
    ensure(
        each < 8 * 1024,
        "less than 8192 bytes for each idle stream",
        format!("{each} for each of {count}"),
    )
}

async fn retention(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        b: _unread,
        stop: _stop,
    } = cx.pair().await?;
    send(&mut a, b"x").await?;
    cx.settle().await;
    let before = alloc::held();
    for i in 0..2000 {
        cx.step(format!("sending byte {i} that nobody reads"));
        // A transport may take fewer, or have enough of them: what it holds then is what counts.
        let sent = tokio::time::timeout(Duration::from_secs(1), send(&mut a, b"x"));
        if !matches!(sent.await, Ok(Ok(()))) {
            break;
        }
        cx.settle().await;
    }
    let more = alloc::held() - before;
    ensure(
        more < 1 << 20,
        "less than a MiB held for 2000 unread bytes",
        format!("{more} bytes"),
    )
}

async fn no_leak(cx: Cx) -> Result<(), Failure> {
    if cx.caps().has(Cap::Mux) {
        let session = cx.session().await?;
        return steady(&cx, 10_000, async || {
            let (mut a, mut b) = stream(&session).await?;
            exchange(&mut a, &mut b).await
        })
        .await;
    }
    steady(&cx, 500, async || {
        let Pair {
            mut a,
            mut b,
            stop: _stop,
        } = cx.pair().await?;
        exchange(&mut a, &mut b).await
    })
    .await
}

async fn small_reads(cx: Cx) -> Result<(), Failure> {
    let Pair { a, b, stop: _stop } = cx.pair().await?;
    let ends = tokio::sync::Mutex::new((a, b));
    steady(&cx, 10_000, async || {
        let mut ends = ends.lock().await;
        let (a, b) = &mut *ends;
        tokio::try_join!(send(a, b"x"), receive(b, b"x")).map(drop)
    })
    .await
}

/// Does something a hundred times to warm up, then `times` times, and compares what is held.
async fn steady(
    cx: &Cx,
    times: usize,
    round: impl AsyncFn() -> Result<(), Failure>,
) -> Result<(), Failure> {
    for _ in 0..100 {
        round().await?;
    }
    cx.settle().await;
    let before = alloc::held();
    for i in 0..times {
        cx.step(format!("round {i}"));
        round().await?;
    }
    cx.settle().await;
    let more = alloc::held() - before;
    ensure(
        more < 64 * 1024,
        format!("less than 64 KiB kept after {times} rounds"),
        format!("{more} bytes"),
    )
}
