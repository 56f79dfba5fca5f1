//! Wakers: who waits is woken, once there is a reason, and only then.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use crate::case::page;
use crate::context::{Cx, ensure, join, receive, send};
use crate::pair::{End, Pair};
use crate::report::{Expecting, Failure};
use crate::step::{CountingWaker, fill, park_read, poll_read, poll_write};

page! { Wake;
    LAST_REGISTERED = "wake.last_registered", "the last waker counts" {
        promise: "When an operation is polled by one task and then by another, the second is woken.",
        source: "Rust's Future::poll: only the waker of the most recent call is scheduled",
        bug: "a stream that moves to another task and never wakes again",
        secs: 20, needs: [], Steps: last_registered,
    }
    RW_INDEPENDENT = "wake.rw_independent", "readers and writers have wakers of their own" {
        promise: "A pending read and a pending write by different tasks are each woken by what concerns them.",
        source: "tokio::io::split; tokio-rs/tokio#3200",
        bug: "one waker slot for both directions (libp2p/rust-yamux#232, nervosnetwork/tentacle#424, tokio-rs/tls#40)",
        secs: 20, needs: [], Steps: rw_independent,
    }
    WRITE_ONLY = "wake.write_only", "writing needs no reader beside it" {
        promise: "Four MiB are written by a task while nobody ever polls the read side of that end.",
        source: "tokio::io::split: the halves are independent",
        bug: "tokio-yamux 0.3.20 learns of window updates only where it is read (nervosnetwork/tentacle#455)",
        secs: 30, needs: [], Tasks: write_only,
    }
    READ_ONLY = "wake.read_only", "reading needs no writer beside it" {
        promise: "Four MiB are read by a task while nobody ever polls the write side of that end.",
        source: "tokio::io::split: the halves are independent",
        bug: "window updates that are sent only when the application writes",
        secs: 30, needs: [], Tasks: read_only,
    }
    NO_BUSY_LOOP = "wake.no_busy_loop", "nobody is woken for nothing" {
        promise: "A read that waits on a silent connection is woken a few times at most.",
        source: "Rust's Future contract: wake when progress can be made",
        bug: "a poll that wakes itself and burns a core while idle",
        secs: 20, needs: [], Steps: no_busy_loop,
    }
    DROPPED = "wake.dropped", "wakers are given back" {
        promise: "After an end is gone, nobody holds a waker of its operations.",
        source: "Rust's Waker: a copy keeps its task in memory",
        bug: "tasks that are never freed because a finished stream still holds their waker",
        secs: 20, needs: [], Steps: dropped,
    }
    ON_EOF = "wake.on_eof", "the end wakes a reader" {
        promise: "A pending read is woken by the peer's shutdown.",
        source: "Rust's Future contract",
        bug: "a reader that sleeps through the end",
        secs: 20, needs: [], Steps: on_eof,
    }
    ON_RESET = "wake.on_reset", "a reset wakes a reader" {
        promise: "A pending read is woken by the peer's reset.",
        source: "Rust's Future contract",
        bug: "a reader that sleeps through a reset",
        secs: 20, needs: [ResetHandle], Steps: on_reset,
    }
    ON_CLOSE = "wake.on_close", "a close wakes a reader" {
        promise: "A pending read is woken by a close of its own end.",
        source: "Go's net.Conn: Close unblocks Read and Write",
        bug: "libp2p/rust-yamux#216: a parked read never learns of a close",
        secs: 20, needs: [CloseHandle], Steps: on_close,
    }
    ON_DEADLINE = "wake.on_deadline", "a deadline wakes a reader" {
        promise: "A pending read is woken when its deadline passes, and when a passed one is set.",
        source: "Go's net.Conn: a deadline applies to pending operations",
        bug: "deadlines that are looked at only when an operation starts",
        secs: 20, needs: [Deadlines], Steps: on_deadline,
    }
    PANIC_SAFE = "wake.panic_safe", "a waker that panics" {
        promise: "After a waker has panicked, the connection goes on or fails; it neither hangs nor panics.",
        source: "std::sync::Mutex: poisoning",
        bug: "a session lock that is poisoned because somebody was woken under it",
        secs: 20, needs: [InMemory], Steps: panic_safe,
    }
    REENTRANT = "wake.reentrant", "a waker that polls" {
        promise: "A waker may poll the connection from within its call, and the read it waits for completes.",
        source: "Rust's Waker: nothing forbids it; executors that run inline do it",
        bug: "waking under a lock that the next poll takes: a deadlock",
        secs: 20, needs: [InMemory, ReentrantWake], Steps: reentrant,
    }
}

async fn last_registered(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let (first, second) = (CountingWaker::new(), CountingWaker::new());
    park_read(&mut a, &first)?;
    park_read(&mut a, &second)?;
    send(&mut b, b"x").await?;
    cx.until("the second task's read to be woken", || second.wakes() > 0)
        .await?;
    receive(&mut a, b"x").await?;

    fill(&cx, &mut a, &first).await?;
    fill(&cx, &mut a, &second).await?;
    let before = second.wakes();
    drain_until(&cx, &mut b, "the second task's write to be woken", || {
        second.wakes() > before
    })
    .await
}

/// Reads what comes until `done`.
async fn drain_until(
    cx: &Cx,
    io: &mut End,
    expected: &str,
    done: impl Fn() -> bool,
) -> Result<(), Failure> {
    let mut buf = vec![0; 64 * 1024];
    let waker = CountingWaker::new();
    for _ in 0..2000 {
        if done() {
            return Ok(());
        }
        match poll_read(io, &mut waker.context(), &mut buf) {
            Poll::Ready(Ok(0)) => return Err(Failure::new("more bytes", "the end")),
            Poll::Ready(result) => drop(result.expecting("a read to succeed")?),
            Poll::Pending => cx.settle().await,
        }
    }
    Err(Failure::new(expected, "nothing after all was read"))
}

async fn rw_independent(cx: Cx) -> Result<(), Failure> {
    for write_first in [true, false] {
        let Pair {
            mut a,
            mut b,
            stop: _stop,
        } = cx.pair().await?;
        let (reader, writer) = (CountingWaker::new(), CountingWaker::new());
        if write_first {
            fill(&cx, &mut a, &writer).await?;
            park_read(&mut a, &reader)?;
        } else {
            park_read(&mut a, &reader)?;
            fill(&cx, &mut a, &writer).await?;
        }
        let writes = writer.wakes();
        drain_until(&cx, &mut b, "the writer to be woken", || {
            writer.wakes() > writes
        })
        .await?;
        park_or_take(&mut a, &reader);
        fill(&cx, &mut a, &writer).await?;
        let reads = reader.wakes();
        send(&mut b, b"x").await?;
        cx.until("the reader to be woken", || reader.wakes() > reads)
            .await?;
    }
    Ok(())
}

fn park_or_take(io: &mut End, waker: &CountingWaker) {
    let _ = poll_read(io, &mut waker.context(), &mut [0]);
}

async fn write_only(cx: Cx) -> Result<(), Failure> {
    let Pair { a, b, stop: _stop } = cx.pair().await?;
    one_way(&cx, a, b).await
}

async fn read_only(cx: Cx) -> Result<(), Failure> {
    let Pair { a, b, stop: _stop } = cx.pair().await?;
    one_way(&cx, b, a).await
}

/// Sends 4 MiB from one end to the other; nothing else is ever polled.
async fn one_way(cx: &Cx, from: End, to: End) -> Result<(), Failure> {
    let data = Arc::new(cx.rng().bytes(4 << 20));
    let expected = Arc::clone(&data);
    let (unread, mut writer) = split(from);
    let (mut reader, unwritten) = split(to);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { send(&mut writer, &data).await.map(|()| writer) });
    cx.step("sending one way, each end used by one task");
    receive(&mut reader, &expected).await?;
    join(&mut tasks).await?;
    drop((unread, unwritten));
    Ok(())
}

async fn no_busy_loop(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let waker = CountingWaker::new();
    let mut seen = 0;
    park_read(&mut a, &waker)?;
    for _ in 0..30 {
        cx.settle().await;
        if waker.wakes() > seen {
            seen = waker.wakes();
            park_read(&mut a, &waker)?;
        }
    }
    ensure(
        waker.wakes() <= 5,
        "at most 5 wake-ups of an idle read",
        format!("{}", waker.wakes()),
    )?;
    send(&mut b, b"x").await?;
    cx.until("a wake-up when data came", || waker.wakes() > seen)
        .await
}

async fn dropped(cx: Cx) -> Result<(), Failure> {
    let Pair { mut a, b, stop } = cx.pair().await?;
    let waker = CountingWaker::new();
    park_read(&mut a, &waker)?;
    fill(&cx, &mut a, &waker).await?;
    drop((a, b));
    cx.settle().await;
    let held = waker.copies();
    drop(stop);
    ensure(
        held == 0,
        "no copy of the waker after both ends are dropped",
        format!("{held} copies"),
    )
}

async fn on_eof(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let waker = CountingWaker::new();
    park_read(&mut a, &waker)?;
    b.shutdown().await.expecting("a shutdown to succeed")?;
    let woken = || waker.wakes() > 0;
    cx.until("a wake-up at the peer's shutdown", woken).await
}

async fn on_reset(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        b,
        stop: _stop,
    } = cx.pair().await?;
    let waker = CountingWaker::new();
    park_read(&mut a, &waker)?;
    b.control().reset();
    let woken = || waker.wakes() > 0;
    cx.until("a wake-up at the peer's reset", woken).await
}

async fn on_close(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        b: _b,
        stop: _stop,
    } = cx.pair().await?;
    let waker = CountingWaker::new();
    park_read(&mut a, &waker)?;
    a.control().close();
    let woken = || waker.wakes() > 0;
    cx.until("a wake-up at our close", woken).await
}

async fn on_deadline(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        b: _b,
        stop: _stop,
    } = cx.pair().await?;
    let control = a.control();
    let waker = CountingWaker::new();
    control.set_read_deadline(Some(Instant::now() + Duration::from_millis(20)));
    park_read(&mut a, &waker)?;
    cx.until("a wake-up when the deadline passed", || waker.wakes() > 0)
        .await?;
    control.set_read_deadline(None);
    park_read(&mut a, &waker)?;
    let before = waker.wakes();
    control.set_read_deadline(Some(Instant::now()));
    let woken = || waker.wakes() > before;
    cx.until("a wake-up when a passed deadline was set", woken)
        .await
}

/// A waker that panics, once.
#[derive(Default)]
struct Panicking(AtomicBool);

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.0.swap(true, Ordering::SeqCst) {
            // Unlike `panic!` this prints nothing.
            resume_unwind(Box::new("the suite's waker"));
        }
    }
}

async fn panic_safe(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let panicking = Arc::new(Panicking::default());
    let waker = Waker::from(Arc::clone(&panicking));
    let mut byte = [0];
    let parked = poll_read(&mut a, &mut Context::from_waker(&waker), &mut byte);
    ensure(parked.is_pending(), "a pending read", "a ready one")?;
    let quiet = CountingWaker::new();
    // The panic may come out here, or in a task of the transport.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let _ = poll_write(&mut b, &mut quiet.context(), b"x");
        let _ = Pin::new(&mut b).poll_flush(&mut quiet.context());
    }));
    cx.settle().await;
    cx.step("going on after a waker panicked");
    let rest = async {
        let mut got = [0; 2];
        let sent = b.write_all(b"xx").await;
        let read = a.read_exact(&mut got).await;
        let _ = (sent, read);
    };
    cx.within("success or an error after a waker panicked", rest)
        .await
}

/// A waker that polls the read it belongs to.
struct Inline {
    end: Mutex<Option<End>>,
    got: AtomicBool,
}

impl Inline {
    fn poll(self: &Arc<Self>) {
        let taken = self
            .end
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut end) = taken else { return };
        let waker = Waker::from(Arc::clone(self));
        let mut byte = [0];
        if poll_read(&mut end, &mut Context::from_waker(&waker), &mut byte).is_ready() {
            self.got.store(true, Ordering::SeqCst);
        }
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        self.poll();
    }
}

async fn reentrant(cx: Cx) -> Result<(), Failure> {
    let Pair {
        a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let inline = Arc::new(Inline {
        end: Mutex::new(Some(a)),
        got: AtomicBool::new(false),
    });
    inline.poll();
    cx.step("writing to a reader whose waker polls");
    send(&mut b, b"x").await?;
    let got = || inline.got.load(Ordering::SeqCst);
    let outcome = cx.until("the read inside the waker to complete", got).await;
    // The waker owns the end, and the end may hold the waker.
    inline
        .end
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    outcome
}
