//! Backpressure: a writer is stopped while nobody reads, and goes on when somebody does.

use std::pin::Pin;
use std::task::Poll;

use tokio::io::AsyncWrite;

use crate::case::page;
use crate::context::{Cx, ensure};
use crate::pair::Pair;
use crate::report::{Expecting, Failure};
use crate::step::{CountingWaker, fill, poll_read};

page! { Bp;
    BOUNDED = "bp.bounded", "unread bytes are bounded" {
        promise: "While nobody reads, no more bytes are taken than the transport claims; then a write is pending.",
        source: "RFC 9293 section 3.8.6: the receive window",
        bug: "Go's 2015 revdial: a receive buffer that grows without bound",
        secs: 30, needs: [Bounded], Steps: bounded,
    }
    RESUME = "bp.resume", "a stopped writer goes on" {
        promise: "A pending write is woken when the peer has read, again and again, and no byte is lost.",
        source: "Rust's Future contract",
        bug: "a half-closed writer that stalls for ever (hashicorp/yamux#133)",
        secs: 30, needs: [], Steps: resume,
    }
}

async fn bounded(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        b: _b,
        stop: _stop,
    } = cx.pair().await?;
    let waker = CountingWaker::new();
    let taken = fill(&cx, &mut a, &waker).await?;
    let bound = cx.caps().bound();
    ensure(
        taken <= bound,
        format!("at most {bound} bytes taken while nobody reads"),
        format!("{taken}"),
    )
}

async fn resume(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let waker = CountingWaker::new();
    let mut buf = vec![0; 64 * 1024];
    let mut unread = 0;
    for round in 0..4 {
        unread += fill(&cx, &mut a, &waker).await?;
        let before = waker.wakes();
        let reader = CountingWaker::new();
        let mut idle = 0;
        while unread > 0 && idle < 80 {
            match poll_read(&mut b, &mut reader.context(), &mut buf) {
                Poll::Ready(read) => {
                    let n = read.expecting("a read to succeed")?;
                    ensure(n > 0, "more bytes", "the end of the stream")?;
                    unread = unread.saturating_sub(n);
                    idle = 0;
                }
                Poll::Pending => {
                    // What was taken may need a flush to leave.
                    let _ = Pin::new(&mut a).poll_flush(&mut waker.context());
                    idle += 1;
                    cx.settle().await;
                }
            }
        }
        let place = format!("in round {round}");
        ensure(
            unread == 0,
            "every byte that was taken to arrive",
            format!("{unread} bytes missing"),
        )
        .map_err(|failure| failure.at(place.clone()))?;
        let woken = || waker.wakes() > before;
        cx.until("the writer to be woken when its bytes were read", woken)
            .await
            .map_err(|failure| failure.at(place))?;
    }
    Ok(())
}
