//! Ending our direction: once, after everything, for good.

use std::io::ErrorKind;

use tokio::io::AsyncWriteExt;

use crate::case::page;
use crate::context::{Cx, ensure, receive_to_end, send, send_and_shutdown};
use crate::fault::Tap;
use crate::pair::{Pair, pipe};
use crate::report::{Expecting, Failure, describe};

page! { Shutdown;
    IDEMPOTENT = "shutdown.idempotent", "a second shutdown is harmless" {
        promise: "A second shutdown succeeds, and the peer reads one clean end.",
        source: "tokio's AsyncWrite::poll_shutdown: it may be called again",
        bug: "a second shutdown that fails or hangs",
        secs: 10, needs: [], Tasks: idempotent,
    }
    ONE_FIN = "shutdown.one_fin", "a second shutdown sends nothing" {
        promise: "A second shutdown puts no byte on the wire.",
        source: "the yamux specification: FIN closes the stream once",
        bug: "yamux 0.14.1 sends FIN twice, at which hashicorp/yamux closes the whole session",
        secs: 10, needs: [Layered], Tasks: one_fin,
    }
    FLUSHES = "shutdown.flushes", "a shutdown implies a flush" {
        promise: "Bytes written before a shutdown arrive without a flush.",
        source: "tokio's AsyncWrite::poll_shutdown: it implies a flush",
        bug: "a buffering wrapper that forwards shutdown before its buffer",
        secs: 10, needs: [], Tasks: flushes,
    }
    WRITE_AFTER_SHUTDOWN = "write.after_shutdown", "a write after our shutdown fails" {
        promise: "A write after our shutdown fails with BrokenPipe; it neither hangs nor panics nor sends.",
        source: "POSIX write(2): EPIPE after shutdown(2)",
        bug: "yamux 0.14.1 answers WriteZero, which callers take for a full disk",
        secs: 10, needs: [], Tasks: write_after_shutdown,
    }
}

async fn idempotent(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    send_and_shutdown(&mut a, b"once").await?;
    cx.step("shutting down again");
    a.shutdown()
        .await
        .expecting("a second shutdown to succeed")?;
    receive_to_end(&mut b, b"once").await
}

async fn one_fin(cx: Cx) -> Result<(), Failure> {
    let (wire, other) = pipe();
    let (wire, log) = Tap::new(wire);
    let Pair {
        mut a,
        b: _b,
        stop: _stop,
    } = cx.pair_over(Box::new(wire), other).await?;
    send_and_shutdown(&mut a, b"once").await?;
    cx.settle().await;
    let before = log.written();
    cx.step("shutting down again");
    // Whether it succeeds is `shutdown.idempotent`'s business.
    let _ = a.shutdown().await;
    let _ = a.flush().await;
    cx.settle().await;
    let more = log.written() - before;
    ensure(
        more == 0,
        "no byte on the wire at a second shutdown",
        format!("{more} bytes"),
    )
}

async fn flushes(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let n = a
        .write(b"unflushed")
        .await
        .expecting("a write to succeed")?;
    a.shutdown().await.expecting("a shutdown to succeed")?;
    cx.step("reading bytes that were never flushed");
    receive_to_end(&mut b, &b"unflushed"[..n]).await
}

async fn write_after_shutdown(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    send(&mut a, b"said").await?;
    a.shutdown().await.expecting("a shutdown to succeed")?;
    cx.step("writing after our own shutdown");
    let outcome = match a.write(b"more").await {
        Ok(n) => Err(Failure::new("BrokenPipe", format!("{n} bytes taken"))),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new("BrokenPipe", describe(&error))),
    };
    outcome?;
    receive_to_end(&mut b, b"said").await
}
