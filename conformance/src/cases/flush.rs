//! Flushing: what a completed flush means.

use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::case::page;
use crate::context::{Cx, ensure, receive, send};
use crate::fault::{Gate, Tap};
use crate::pair::{Pair, pipe};
use crate::report::{Expecting, Failure};
use crate::step::{CountingWaker, poll_write};

page! { Flush;
    PROGRESS = "flush.progress", "a flush means that bytes are on the wire" {
        promise: "When a flush is done, the transport beneath has taken at least the bytes that were written.",
        source: "tokio's AsyncWrite::poll_flush: all data reach their destination",
        bug: "a flush that says ready while bytes wait in a buffer",
        secs: 10, needs: [FlushOnWire, Layered], Tasks: progress,
    }
    PENDING_UNDER_BACKPRESSURE = "flush.pending_under_backpressure", "a flush waits" {
        promise: "While the transport beneath takes nothing, a flush is pending; when it does, the flush is woken and done.",
        source: "tokio's AsyncWrite::poll_flush",
        bug: "yamux and tokio-yamux: flush is done when the session has the bytes (they do not claim more)",
        secs: 10, needs: [FlushOnWire, Layered], Steps: pending_under_backpressure,
    }
    NO_DATA_LOST_IF_NEVER_CALLED = "flush.no_data_lost_if_never_called", "bytes leave without a flush" {
        promise: "A small write arrives although nobody flushes: interactive traffic does not wait.",
        source: "POSIX write(2); Go's net.Conn has no flush",
        bug: "a buffering wrapper under a protocol that never flushes",
        secs: 10, needs: [], Tasks: no_data_lost_if_never_called,
    }
    ONE_WRITE = "flush.one_write", "a small message is one write" {
        promise: "A message of 64 bytes reaches the transport beneath in one write, its framing included.",
        source: "RFC 896: small packets; one system call and one packet each",
        bug: "yamux 0.14.1 writes a frame's header and its body one after the other",
        secs: 10, needs: [Layered], Tasks: one_write,
    }
}

async fn progress(cx: Cx) -> Result<(), Failure> {
    let (wire, other) = pipe();
    let (wire, log) = Tap::new(wire);
    let Pair {
        mut a,
        b: _b,
        stop: _stop,
    } = cx.pair_over(Box::new(wire), other).await?;
    cx.settle().await;
    cx.step("flushing 1000 bytes");
    let before = log.written();
    let n = a
        .write(&cx.rng().bytes(1000))
        .await
        .expecting("a write to succeed")?;
    a.flush().await.expecting("a flush to succeed")?;
    let sent = log.written() - before;
    ensure(
        sent >= n as u64,
        format!("at least {n} bytes on the wire after a flush"),
        format!("{sent}"),
    )
}

async fn pending_under_backpressure(cx: Cx) -> Result<(), Failure> {
    let (wire, other) = pipe();
    let (wire, gate) = Gate::new(wire);
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair_over(Box::new(wire), other).await?;
    cx.settle().await;
    cx.step("flushing 4 bytes while the wire takes nothing");
    gate.shut();
    let waker = CountingWaker::new();
    let n = match poll_write(&mut a, &mut waker.context(), b"held") {
        Poll::Ready(written) => written.expecting("a write to succeed")?,
        Poll::Pending => {
            // A transport without a buffer of its own takes nothing, and so has nothing to flush.
            gate.open();
            cx.step("writing after the wire takes bytes again");
            return tokio::try_join!(send(&mut a, b"held"), receive(&mut b, b"held")).map(drop);
        }
    };
    for _ in 0..3 {
        let poll = Pin::new(&mut a).poll_flush(&mut waker.context());
        ensure(
            poll.is_pending(),
            "a pending flush while the wire takes nothing",
            format!("{poll:?}"),
        )?;
        cx.settle().await;
    }
    let before = waker.wakes();
    gate.open();
    let woken = || waker.wakes() > before;
    cx.until("the flush to be woken when the wire takes bytes", woken)
        .await?;
    cx.step("finishing the flush");
    a.flush().await.expecting("the flush to succeed")?;
    let poll = Pin::new(&mut a).poll_flush(&mut waker.context());
    ensure(
        matches!(poll, Poll::Ready(Ok(()))),
        "a second flush to be ready",
        format!("{poll:?}"),
    )?;
    receive(&mut b, &b"held"[..n]).await
}

async fn no_data_lost_if_never_called(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let n = a.write(b"keystroke").await;
    let n = n.expecting("a write to succeed")?;
    let read = receive(&mut b, &b"keystroke"[..n]);
    cx.within("bytes that nobody flushed to arrive", read)
        .await?
}

async fn one_write(cx: Cx) -> Result<(), Failure> {
    let (wire, other) = pipe();
    let (wire, log) = Tap::new(wire);
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair_over(Box::new(wire), other).await?;
    cx.settle().await;
    for message in 1..=10 {
        let before = log.writes();
        tokio::try_join!(send(&mut a, &[7; 64]), receive(&mut b, &[7; 64]))?;
        cx.settle().await;
        let writes = log.writes() - before;
        ensure(
            writes == 1,
            "one write to the transport for 64 bytes",
            format!("{writes}"),
        )
        .map_err(|failure| failure.at(format!("at message {message}")))?;
    }
    Ok(())
}
