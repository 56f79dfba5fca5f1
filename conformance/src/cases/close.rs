//! Close from another task: Go's `Conn.Close`.

use std::task::Poll;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::case::page;
use crate::context::{Cx, ensure, receive, send};
use crate::pair::Pair;
use crate::report::Failure;
use crate::step::{CountingWaker, fill, park_read, poll_read, poll_write};

page! { Close;
    OTHER_TASK_WAKES_BOTH = "close.other_task_wakes_both", "a close ends what is pending" {
        promise: "A close from another task wakes a pending read and a pending write of that end, and both fail.",
        source: "Go's net.Conn: any blocked Read or Write will be unblocked and return errors",
        bug: "hashicorp/yamux: Close is a half close, and a blocked Read stays blocked",
        secs: 20, needs: [CloseHandle], Steps: other_task_wakes_both,
    }
    IDEMPOTENT = "close.idempotent", "a second close is harmless" {
        promise: "Closing twice, and from two handles, does no harm.",
        source: "Go's net.Conn: Close may be called from several goroutines",
        bug: "a second close that panics or ends somebody else's stream",
        secs: 10, needs: [CloseHandle], Tasks: idempotent,
    }
    OPS_AFTER_CLOSE_FAIL = "close.ops_after_close_fail", "after a close nothing works" {
        promise: "After our close, reads and writes fail with an error, not with an end of the stream.",
        source: "Go's net.ErrClosed",
        bug: "a read after close that looks like the peer's clean end",
        secs: 10, needs: [CloseHandle], Tasks: ops_after_close_fail,
    }
    PEER_SEES_END = "close.peer_sees_end", "the peer learns of a close" {
        promise: "After a close the peer reads what was sent, and then an end or an error; it does not hang.",
        source: "Go's nettest BasicIO: Close does not discard written data",
        bug: "a close that is only ours: the peer waits for ever",
        secs: 10, needs: [CloseHandle], Tasks: peer_sees_end,
    }
}

async fn other_task_wakes_both(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        b: _b,
        stop: _stop,
    } = cx.pair().await?;
    let (reader, writer) = (CountingWaker::new(), CountingWaker::new());
    park_read(&mut a, &reader)?;
    fill(&cx, &mut a, &writer).await?;
    let writes = writer.wakes();
    a.control().close();
    cx.until("the pending read to be woken", || reader.wakes() > 0)
        .await?;
    cx.until("the pending write to be woken", || writer.wakes() > writes)
        .await?;
    let read = poll_read(&mut a, &mut reader.context(), &mut [0]);
    ensure(
        matches!(read, Poll::Ready(Err(_))),
        "the read to fail after close",
        format!("{read:?}"),
    )?;
    let write = poll_write(&mut a, &mut writer.context(), b"x");
    ensure(
        matches!(write, Poll::Ready(Err(_))),
        "the write to fail after close",
        format!("{write:?}"),
    )
}

async fn idempotent(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        b: _b,
        stop: _stop,
    } = cx.pair().await?;
    let (one, two) = (a.control(), a.control());
    one.close();
    two.close();
    one.close();
    cx.step("reading after three closes");
    let read = a.read(&mut [0]).await;
    ensure(read.is_err(), "the read to fail", format!("{read:?}"))
}

async fn ops_after_close_fail(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    send(&mut b, b"unread").await?;
    cx.settle().await;
    a.control().close();
    cx.step("reading after our close");
    let read = a.read(&mut [0; 8]).await;
    ensure(read.is_err(), "the read to fail", format!("{read:?}"))?;
    cx.step("writing after our close");
    let write = a.write(b"x").await;
    ensure(write.is_err(), "the write to fail", format!("{write:?}"))
}

async fn peer_sees_end(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    send(&mut a, b"last words").await?;
    a.control().close();
    cx.step("reading what was sent before a close");
    receive(&mut b, b"last words").await?;
    cx.step("waiting for the end after a close");
    let read = b.read(&mut [0]).await;
    ensure(
        matches!(read, Ok(0) | Err(_)),
        "an end or an error",
        format!("{read:?}"),
    )
}
