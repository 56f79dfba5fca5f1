//! Memory. These cases need the suite's [`CountingAllocator`](crate::CountingAllocator).

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
    NO_LEAK = "mem.no_leak", "what is opened and closed is given back" {
        promise: "After five hundred connections or streams, opened, used and dropped, memory is what it was, give or take 64 KiB.",
        source: "CWE-401: memory not released",
        bug: "streams that are remembered for ever (libp2p/rust-yamux#188, fatedier/frp#4802)",
        secs: 60, needs: [Allocator], Virtual: no_leak,
    }
    SMALL_READS = "mem.small_reads", "small messages take little memory" {
        promise: "Ten thousand messages of one byte, each read before the next is sent, keep less than 64 KiB more.",
        source: "CWE-770: allocation without limits",
        bug: "a byte that pins the 64 KiB buffer it came in",
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

async fn no_leak(cx: Cx) -> Result<(), Failure> {
    if cx.caps().has(Cap::Mux) {
        let session = cx.session().await?;
        return steady(&cx, 500, async || {
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
