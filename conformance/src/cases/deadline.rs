//! Deadlines beyond what nettest checks.

use std::io::ErrorKind;
use std::task::Poll;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, Instant};

use crate::case::page;
use crate::context::{Cx, ensure, receive, send};
use crate::pair::Pair;
use crate::report::{Expecting, Failure};
use crate::step::{CountingWaker, park_read, poll_read};

page! { Deadline;
    CLEAR = "deadline.clear", "a deadline can be taken back" {
        promise: "After a passed deadline is cleared, reads and writes work as before.",
        source: "Go's net.Conn: a zero deadline means none",
        bug: "a timeout that stays for good",
        secs: 10, needs: [Deadlines], Tasks: clear,
    }
    PAST_BEATS_DATA = "deadline.past_beats_data", "a passed deadline comes before data" {
        promise: "With data waiting and a deadline in the past, a read times out and takes nothing.",
        source: "nettest PastTimeout",
        bug: "hashicorp/yamux: a deadline is looked at only where the operation would block",
        secs: 10, needs: [Deadlines], Steps: past_beats_data,
    }
    MOVE_LATER = "deadline.move_later_while_parked", "a deadline can be moved later" {
        promise: "When the deadline of a pending read is moved later, the read waits on, and data still reaches it.",
        source: "Go's net.Conn: deadlines can be extended",
        bug: "a timer that is armed once and never moved",
        secs: 10, needs: [Deadlines], Steps: move_later,
    }
    MOVE_EARLIER = "deadline.move_earlier_while_parked", "a deadline can be moved earlier" {
        promise: "When the deadline of a pending read is moved earlier, the read times out then.",
        source: "Go's net.Conn: a deadline applies to pending operations",
        bug: "a timer that is armed once and never moved",
        secs: 10, needs: [Deadlines], Tasks: move_earlier,
    }
    SPLIT_HALVES = "deadline.split_halves", "a deadline belongs to one direction" {
        promise: "While a read times out again and again, the other task of the same end writes a MiB.",
        source: "nettest ReadTimeout, concurrently",
        bug: "a timeout that closes the connection for both directions",
        secs: 20, needs: [Deadlines], Tasks: split_halves,
    }
}

fn passed() -> Instant {
    Instant::now()
}

fn in_millis(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

/// Fails unless the operation timed out.
pub(super) fn timed_out<T: std::fmt::Debug>(
    what: &str,
    outcome: &std::io::Result<T>,
) -> Result<(), Failure> {
    let kept = matches!(outcome, Err(error) if error.kind() == ErrorKind::TimedOut);
    ensure(
        kept,
        format!("{what} to fail with TimedOut"),
        format!("{outcome:?}"),
    )
}

async fn clear(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let control = a.control();
    control.set_read_deadline(Some(passed()));
    control.set_write_deadline(Some(passed()));
    timed_out("the read", &a.read(&mut [0]).await)?;
    timed_out("the write", &a.write(b"x").await)?;
    control.set_read_deadline(None);
    control.set_write_deadline(None);
    cx.step("going on without a deadline");
    send(&mut a, b"there").await?;
    receive(&mut b, b"there").await?;
    send(&mut b, b"back").await?;
    receive(&mut a, b"back").await
}

async fn past_beats_data(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    send(&mut b, b"data").await?;
    cx.settle().await;
    a.control().set_read_deadline(Some(passed()));
    for _ in 0..3 {
        timed_out("the read", &a.read(&mut [0; 2]).await)?;
    }
    a.control().set_read_deadline(None);
    cx.step("reading the data after the deadline is cleared");
    receive(&mut a, b"data").await
}

async fn move_later(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let waker = CountingWaker::new();
    a.control().set_read_deadline(Some(in_millis(40)));
    park_read(&mut a, &waker)?;
    a.control().set_read_deadline(Some(in_millis(60_000)));
    if waker.wakes() > 0 {
        park_read(&mut a, &waker)?;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut byte = [0];
    let poll = poll_read(&mut a, &mut waker.context(), &mut byte);
    ensure(
        poll.is_pending(),
        "a pending read past the first deadline",
        format!("{poll:?}"),
    )?;
    let before = waker.wakes();
    send(&mut b, b"x").await?;
    let woken = || waker.wakes() > before;
    cx.until("the read to be woken by data", woken).await?;
    let poll = poll_read(&mut a, &mut waker.context(), &mut byte);
    ensure(
        matches!(poll, Poll::Ready(Ok(1))),
        "a byte",
        format!("{poll:?}"),
    )
}

async fn move_earlier(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        b: _b,
        stop: _stop,
    } = cx.pair().await?;
    let control = a.control();
    control.set_read_deadline(Some(in_millis(60_000)));
    let mover = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        control.set_read_deadline(Some(in_millis(20)));
        Ok(())
    };
    let mut byte = [0];
    let read = cx.within("the read to end at its earlier deadline", a.read(&mut byte));
    let (read, ()) = tokio::try_join!(read, mover)?;
    timed_out("the read", &read)
}

async fn split_halves(cx: Cx) -> Result<(), Failure> {
    let Pair {
        a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let control = a.control();
    let (mut reader, mut writer) = tokio::io::split(a);
    let data = cx.rng().bytes(1 << 20);
    let timeouts = async {
        for _ in 0..20 {
            control.set_read_deadline(Some(in_millis(2)));
            timed_out("the read", &reader.read(&mut [0]).await)?;
        }
        Ok(())
    };
    let written = async {
        send(&mut writer, &data).await?;
        writer.flush().await.expecting("a flush to succeed")
    };
    // Slowly, so that the write is pending at most timeouts.
    let received = async {
        for piece in data.chunks(32 * 1024) {
            receive(&mut b, piece).await?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    };
    cx.step("writing while reads time out");
    tokio::try_join!(timeouts, written, received).map(drop)
}
