//! Ends that are dropped, in good order or in the middle of a sentence.

use std::io::{self, ErrorKind};

use tokio::io::AsyncWriteExt;

use crate::case::page;
use crate::context::{
    Cx, ensure, expect_broken, expect_end, receive_to_end, send, send_and_shutdown,
};
use crate::pair::{End, Pair};
use crate::report::{Expecting, Failure, describe};

page! { Drop;
    AFTER_SHUTDOWN_DELIVERS_ALL = "drop.after_shutdown_delivers_all", "a finished end may go" {
        promise: "Bytes that were written, flushed and shut down arrive although the end is dropped at once.",
        source: "POSIX close(2) after shutdown(2)",
        bug: "a session that forgets a stream's queue when its handle goes",
        secs: 20, needs: [], Tasks: after_shutdown_delivers_all,
    }
    WITHOUT_SHUTDOWN_IS_RESET = "drop.without_shutdown_is_reset", "an unfinished end is no end" {
        promise: "When an end is dropped without a shutdown, its peer reads a prefix and then an error.",
        source: "RFC 9293 section 3.10.7, RST; the yamux specification, RST",
        bug: "yamux 0.14.1 shows a reset, and a dropped stream, as a clean end",
        secs: 10, needs: [ResetVisible], Tasks: without_shutdown_is_reset,
    }
    BEHIND_DATA_IS_RESET = "drop.behind_data_is_reset", "much data does not make an end" {
        promise: "When an end is dropped without a shutdown behind 200,000 flushed bytes, its peer reads a prefix and then an error.",
        source: "RFC 9293 section 3.10.7, RST; the yamux specification, RST",
        bug: "yamux 0.14.1: 200,000 bytes, then a clean end: an upload that was broken off looks whole",
        secs: 10, needs: [ResetVisible], Tasks: behind_data_is_reset,
    }
    WRITE_AFTER_PEER_RESET = "drop.write_after_peer_reset", "a write to a broken stream says so" {
        promise: "After the peer was dropped without a shutdown, writes fail with BrokenPipe, ConnectionReset or ConnectionAborted.",
        source: "POSIX write(2): EPIPE, ECONNRESET",
        bug: "yamux 0.14.1 answers WriteZero, which callers take for a full disk",
        secs: 10, needs: [ResetVisible], Tasks: write_after_peer_reset,
    }
    HALF_CLOSED_RESPONDER = "drop.half_closed_responder", "a responder that dies is no answer" {
        promise: "When a responder is dropped in the middle of its answer, after the request's end, the requester reads an error.",
        source: "RFC 9293 section 3.10.7, RST",
        bug: "yamux 0.14.1 sends FIN for a stream dropped after the peer's FIN: a truncated answer looks whole",
        secs: 10, needs: [HalfClose, ResetVisible], Tasks: half_closed_responder,
    }
    WRITER_UNBLOCKS = "peer_gone.writer_unblocks", "nobody writes to nobody for ever" {
        promise: "When the peer has shut down and is dropped, our writes fail at last; they do not hang.",
        source: "POSIX write(2): EPIPE",
        bug: "yamux 0.14.1 and tokio-yamux 0.3.20 leave the writer hanging for ever",
        secs: 20, needs: [PeerGone], Tasks: writer_unblocks,
    }
}

async fn after_shutdown_delivers_all(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let data = cx.rng().bytes(300_000);
    let sender = async {
        send_and_shutdown(&mut a, &data).await?;
        drop(a);
        Ok(())
    };
    cx.step("reading from an end that is gone");
    tokio::try_join!(sender, receive_to_end(&mut b, &data)).map(drop)
}

async fn without_shutdown_is_reset(cx: Cx) -> Result<(), Failure> {
    for flushed in [0, 5000] {
        let Pair {
            mut a,
            mut b,
            stop: _stop,
        } = cx.pair().await?;
        let data = cx.rng().bytes(flushed);
        send(&mut a, &data).await?;
        cx.settle().await;
        drop(a);
        cx.step(format!("reading after a drop behind {flushed} bytes"));
        expect_broken(&mut b, &data).await?;
    }
    Ok(())
}

async fn behind_data_is_reset(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let data = cx.rng().bytes(200_000);
    let sender = async {
        send(&mut a, &data).await?;
        drop(a);
        Ok(())
    };
    cx.step("reading 200,000 bytes and what comes behind them");
    tokio::try_join!(sender, expect_broken(&mut b, &data)).map(drop)
}

async fn write_after_peer_reset(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        b,
        stop: _stop,
    } = cx.pair().await?;
    drop(b);
    cx.step("writing to a peer that was dropped");
    let error = first_write_error(&mut a).await?;
    let honest = matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    );
    ensure(
        honest,
        "BrokenPipe, ConnectionReset or ConnectionAborted",
        describe(&error),
    )
}

/// Writes and flushes until that fails.
async fn first_write_error(end: &mut End) -> Result<io::Error, Failure> {
    let chunk = vec![0; 16 * 1024];
    for _ in 0..PATIENCE {
        if let Err(error) = end.write_all(&chunk).await {
            return Ok(error);
        }
        if let Err(error) = end.flush().await {
            return Ok(error);
        }
        tokio::task::yield_now().await;
    }
    Err(Failure::new(
        "an error from a write to a peer that is gone",
        format!("{} bytes taken", PATIENCE * chunk.len()),
    ))
}

async fn half_closed_responder(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    a.write_all(b"request")
        .await
        .expecting("a write to succeed")?;
    a.shutdown().await.expecting("a shutdown to succeed")?;
    cx.step("reading the request");
    receive_to_end(&mut b, b"request").await?;
    send(&mut b, b"half an ans").await?;
    cx.settle().await;
    drop(b);
    cx.step("reading a broken answer");
    expect_broken(&mut a, b"half an ans").await.map(drop)
}

async fn writer_unblocks(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    b.shutdown().await.expecting("a shutdown to succeed")?;
    cx.step("waiting for the peer's end");
    expect_end(&mut a).await?;
    drop(b);
    cx.step("writing to a peer that is gone");
    first_write_error(&mut a).await.map(drop)
}

/// Writes of 16 KiB: 64 MiB, more than any buffer on the way.
const PATIENCE: usize = 4096;
