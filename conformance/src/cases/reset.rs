//! Abrupt ends: seen by both sides, at once, and never mistaken for a clean end.

use std::task::Poll;

use tokio::io::AsyncWriteExt;

use crate::case::page;
use crate::context::{Cx, ensure, expect_broken, send};
use crate::pair::{End, Pair};
use crate::report::Failure;
use crate::step::{CountingWaker, fill, park_read, poll_read, poll_write};

page! { Reset;
    IS_NOT_EOF = "reset.is_not_eof", "a reset is no end" {
        promise: "After a reset the peer's read fails, and the error stays.",
        source: "RFC 9293 section 3.10.7.4: connection reset",
        bug: "yamux 0.14.1 reads a reset as a clean end",
        secs: 10, needs: [ResetHandle], Tasks: is_not_eof,
    }
    PENDING_OPS_WAKE = "reset.pending_ops_wake", "a reset ends what is pending" {
        promise: "A read and a write that are pending at the peer are woken by a reset and fail.",
        source: "RFC 9293 section 3.10.7.4",
        bug: "a writer that waits for a window that will never come",
        secs: 20, needs: [ResetHandle], Steps: pending_ops_wake,
    }
    BUFFERED_DATA_POLICY = "reset.buffered_data_policy", "data before a reset" {
        promise: "Of the data before a reset the peer reads a prefix, perhaps none, perhaps all, and then the error.",
        source: "RFC 9293 section 3.10.7.4: queued data may be discarded",
        bug: "holes: later data delivered although earlier data was discarded",
        secs: 10, needs: [ResetHandle], Tasks: buffered_data_policy,
    }
    OWN_OPS_FAIL = "reset.own_ops_fail", "after our reset nothing works" {
        promise: "After our own reset our reads and writes fail; they do not hang.",
        source: "Go's net.Conn after SetLinger(0) and Close",
        bug: "operations on a stream that the session has forgotten wait for ever",
        secs: 10, needs: [ResetHandle], Tasks: own_ops_fail,
    }
}

async fn is_not_eof(cx: Cx) -> Result<(), Failure> {
    let Pair {
        a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    a.control().reset();
    cx.step("reading after the peer's reset");
    for _ in 0..3 {
        expect_broken(&mut b, b"").await?;
    }
    Ok(())
}

async fn pending_ops_wake(cx: Cx) -> Result<(), Failure> {
    let Pair {
        a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let (reader, writer) = (CountingWaker::new(), CountingWaker::new());
    park_read(&mut b, &reader)?;
    fill(&cx, &mut b, &writer).await?;
    let writes = writer.wakes();
    a.control().reset();
    cx.until("the pending read to be woken", || reader.wakes() > 0)
        .await?;
    cx.until("the pending write to be woken", || writer.wakes() > writes)
        .await?;
    both_fail(&mut b, &reader, "after the peer's reset")
}

/// Expects a read and a write to be ready with an error.
fn both_fail(io: &mut End, waker: &CountingWaker, place: &str) -> Result<(), Failure> {
    let read = poll_read(io, &mut waker.context(), &mut [0]);
    ensure(
        matches!(read, Poll::Ready(Err(_))),
        "the read to fail",
        format!("{read:?}"),
    )
    .map_err(|failure| failure.at(place))?;
    let write = poll_write(io, &mut waker.context(), b"x");
    ensure(
        matches!(write, Poll::Ready(Err(_))),
        "the write to fail",
        format!("{write:?}"),
    )
    .map_err(|failure| failure.at(place))
}

async fn buffered_data_policy(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let data = cx.rng().bytes(20_000);
    send(&mut a, &data).await?;
    cx.settle().await;
    a.control().reset();
    cx.step("reading what came before a reset");
    expect_broken(&mut b, &data).await.map(drop)
}

async fn own_ops_fail(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        b: _b,
        stop: _stop,
    } = cx.pair().await?;
    a.control().reset();
    cx.step("reading after our own reset");
    expect_broken(&mut a, b"").await?;
    cx.step("writing after our own reset");
    let write = a.write(b"x").await;
    ensure(write.is_err(), "the write to fail", format!("{write:?}"))
}
