//! The eleven cases of Go's `golang.org/x/net/nettest`, step by step.
//!
//! Where Go calls one connection from several goroutines, these split it and share the halves. Bulk data goes in
//! chunks of 1024 bytes, as there.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};

use super::deadline::timed_out;
use crate::caps::Cap;
use crate::case::page;
use crate::context::{Cx, ensure, join, receive, receive_to_end, send, send_in};
use crate::pair::{Control, End, Pair, Stop};
use crate::report::{Expecting, Failure};

page! { Nettest;
    BASIC_IO = "nettest.basic_io" alias "nettest.BasicIO", "a MiB one way, then close" {
        promise: "A MiB written before a close arrives, followed by the end.",
        source: "nettest testBasicIO",
        bug: "a close that discards written data",
        secs: 60, needs: [], Tasks: basic_io,
    }
    PING_PONG = "nettest.ping_pong" alias "nettest.PingPong", "a counter to 1000" {
        promise: "Two ends increment each other's counter up to 1000; both then see the end.",
        source: "nettest testPingPong",
        bug: "small messages that are held back",
        secs: 60, needs: [], Tasks: ping_pong,
    }
    RACY_READ = "nettest.racy_read" alias "nettest.RacyRead", "many readers with tiny deadlines" {
        promise: "Ten tasks that read with deadlines a millisecond ahead see data or TimedOut and nothing else.",
        source: "nettest testRacyRead",
        bug: "a timeout that reports another kind of error",
        secs: 60, needs: [Deadlines], Tasks: racy_read,
    }
    RACY_WRITE = "nettest.racy_write" alias "nettest.RacyWrite", "many writers with tiny deadlines" {
        promise: "Ten tasks that write with deadlines a millisecond ahead succeed or see TimedOut and nothing else.",
        source: "nettest testRacyWrite",
        bug: "a timeout that reports another kind of error",
        secs: 60, needs: [Deadlines], Tasks: racy_write,
    }
    READ_TIMEOUT = "nettest.read_timeout" alias "nettest.ReadTimeout", "a read deadline concerns reads" {
        promise: "With a read deadline in the past, a read times out and a write succeeds.",
        source: "nettest testReadTimeout",
        bug: "one deadline for both directions",
        secs: 60, needs: [Deadlines], Tasks: read_timeout,
    }
    WRITE_TIMEOUT = "nettest.write_timeout" alias "nettest.WriteTimeout", "a write deadline concerns writes" {
        promise: "With a write deadline in the past, a write times out and a read succeeds.",
        source: "nettest testWriteTimeout",
        bug: "hashicorp/yamux looks at a deadline only where the write would block",
        secs: 60, needs: [Deadlines], Tasks: write_timeout,
    }
    PAST_TIMEOUT = "nettest.past_timeout" alias "nettest.PastTimeout", "a deadline in the past" {
        promise: "With deadlines in the past, writes and reads move nothing and time out; without them the connection works on.",
        source: "nettest testPastTimeout",
        bug: "hashicorp/yamux moves data in spite of a passed deadline",
        secs: 60, needs: [Deadlines], Tasks: past_timeout,
    }
    PRESENT_TIMEOUT = "nettest.present_timeout" alias "nettest.PresentTimeout", "a deadline for pending operations" {
        promise: "A pending read and a pending write time out when a third task sets deadlines in the past, not before.",
        source: "nettest testPresentTimeout",
        bug: "setting a deadline does not wake who is blocked",
        secs: 60, needs: [Deadlines], Tasks: present_timeout,
    }
    FUTURE_TIMEOUT = "nettest.future_timeout" alias "nettest.FutureTimeout", "a deadline in the future" {
        promise: "Operations time out when their deadline comes, and the connection goes on where it was.",
        source: "nettest testFutureTimeout",
        bug: "bytes lost or doubled by the write that timed out",
        secs: 60, needs: [Deadlines], Tasks: future_timeout,
    }
    CLOSE_TIMEOUT = "nettest.close_timeout" alias "nettest.CloseTimeout", "a close unblocks" {
        promise: "A read loop and a write loop end when another task closes the connection.",
        source: "nettest testCloseTimeout",
        bug: "hashicorp/yamux: Close leaves a blocked Read blocked",
        secs: 60, needs: [CloseHandle], Tasks: close_timeout,
    }
    CONCURRENT_METHODS = "nettest.concurrent_methods" alias "nettest.ConcurrentMethods", "everything at once" {
        promise: "Reads, writes, deadlines and addresses may be used at the same time; afterwards the connection works.",
        source: "nettest testConcurrentMethods",
        bug: "data races and lost wake-ups between a deadline and an operation",
        secs: 60, needs: [Deadlines], Tasks: concurrent_methods,
    }
}

/// What Go's `Close` is: the control handle's, or a shutdown and a drop.
async fn close(cx: &Cx, mut end: End) {
    if cx.caps().has(Cap::CloseHandle) {
        end.control().close();
    } else {
        // The peer may have gone first.
        let _ = end.shutdown().await;
    }
}

fn set_deadline(control: &dyn Control, deadline: Option<Instant>) {
    control.set_read_deadline(deadline);
    control.set_write_deadline(deadline);
}

fn long_ago() -> Instant {
    Instant::now()
}

fn in_millis(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

/// Sends back what comes, until the stream fails or ends.
fn echo(end: End) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut reader, mut writer) = split(end);
        let mut buf = [0; CHUNK];
        while let Ok(n @ 1..) = reader.read(&mut buf).await {
            if writer.write_all(&buf[..n]).await.is_err() || writer.flush().await.is_err() {
                break;
            }
        }
    });
    tasks
}

/// A pair whose second end echoes.
async fn echoed(cx: &Cx) -> Result<(End, JoinSet<()>, Stop), Failure> {
    let Pair { a, b, stop } = cx.pair().await?;
    Ok((a, echo(b), stop))
}

/// Go's `testRoundtrip`.
async fn roundtrip(cx: &Cx, end: &mut End) -> Result<(), Failure> {
    set_deadline(&*end.control(), None);
    cx.step("a round trip");
    send(end, b"Hello, world!").await?;
    receive(end, b"Hello, world!").await
}

/// Go's `resyncConn`: writes a marker and reads up to its echo.
async fn resync(cx: &Cx, end: End) -> Result<End, Failure> {
    set_deadline(&*end.control(), None);
    cx.step("finding the place in the stream again");
    let (mut reader, mut writer) = split(end);
    let mark = async {
        writer.write_all(&[MARK]).await?;
        writer.flush().await
    };
    let seek = async {
        let mut buf = [0; CHUNK];
        loop {
            match reader.read(&mut buf).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n if buf[n - 1] == MARK => return Ok(()),
                _ => {}
            }
        }
    };
    tokio::try_join!(mark, seek).expecting("the marker to come back")?;
    Ok(reader.unsplit(writer))
}

async fn basic_io(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let data = Arc::new(cx.rng().bytes(1 << 20));
    let mut tasks = JoinSet::new();
    let (sent, context) = (Arc::clone(&data), cx.clone());
    tasks.spawn(async move {
        send_in(&mut a, &sent, CHUNK).await?;
        close(&context, a).await;
        Ok(())
    });
    cx.step("copying to the end");
    receive_to_end(&mut b, &data).await?;
    close(&cx, b).await;
    join(&mut tasks).await
}

async fn ping_pong(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        b,
        stop: _stop,
    } = cx.pair().await?;
    cx.step("playing ping-pong");
    send(&mut a, &0_u64.to_le_bytes()).await?;
    let mut tasks = JoinSet::new();
    for end in [a, b] {
        tasks.spawn(pong(cx.clone(), end));
    }
    join(&mut tasks).await
}

/// One player: adds one to each number, and leaves when it is 1000 or the other has left.
async fn pong(cx: Cx, mut end: End) -> Result<(), Failure> {
    let mut last = None;
    loop {
        let mut buf = [0; 8];
        match end.read_exact(&mut buf).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error).expecting("a number or the end"),
        }
        let n = u64::from_le_bytes(buf);
        if let Some(last) = last {
            ensure(n == last + 2, format!("{}", last + 2), format!("{n}"))?;
        }
        last = Some(n);
        if n == 1000 {
            break;
        }
        send(&mut end, &(n + 1).to_le_bytes()).await?;
    }
    close(&cx, end).await;
    Ok(())
}

async fn racy_read(cx: Cx) -> Result<(), Failure> {
    let Pair {
        a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let mut source = JoinSet::new();
    let noise = cx.rng().bytes(CHUNK);
    // Go's source never rests; this one does now and then, so that some reads have to wait, in virtual time as well.
    source.spawn(async move {
        loop {
            for _ in 0..16 {
                if b.write_all(&noise).await.is_err() {
                    return;
                }
            }
            let _ = b.flush().await;
            sleep(Duration::from_millis(3)).await;
        }
    });
    let control = a.control();
    let (reader, writer) = split(a);
    let reader = Arc::new(Mutex::new(reader));
    control.set_read_deadline(Some(in_millis(1)));
    cx.step("reading from ten tasks");
    let mut tasks = JoinSet::new();
    for _ in 0..10 {
        let (reader, control) = (Arc::clone(&reader), Arc::clone(&control));
        tasks.spawn(async move {
            for _ in 0..100 {
                let mut buf = [0; CHUNK];
                let read = reader.lock().await.read(&mut buf).await;
                buf.fill(0);
                if read.is_err() {
                    timed_out("the read", &read)?;
                    control.set_read_deadline(Some(in_millis(1)));
                }
            }
            Ok(())
        });
    }
    let outcome = join(&mut tasks).await;
    drop(writer);
    outcome
}

async fn racy_write(cx: Cx) -> Result<(), Failure> {
    let Pair {
        a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let mut sink = JoinSet::new();
    sink.spawn(async move {
        let mut buf = [0; CHUNK];
        // It rests now and then, so that some writes have to wait, in virtual time as well.
        for i in 1_usize.. {
            if !matches!(b.read(&mut buf).await, Ok(1..)) {
                return;
            }
            if i % 16 == 0 {
                sleep(Duration::from_millis(3)).await;
            }
        }
    });
    let control = a.control();
    let (reader, writer) = split(a);
    let writer = Arc::new(Mutex::new(writer));
    control.set_write_deadline(Some(in_millis(1)));
    cx.step("writing from ten tasks");
    let mut tasks = JoinSet::new();
    for _ in 0..10 {
        let (writer, control) = (Arc::clone(&writer), Arc::clone(&control));
        tasks.spawn(async move {
            for _ in 0..100 {
                let written = writer.lock().await.write(&[7; CHUNK]).await;
                if written.is_err() {
                    timed_out("the write", &written)?;
                    control.set_write_deadline(Some(in_millis(1)));
                }
            }
            Ok(())
        });
    }
    let outcome = join(&mut tasks).await;
    drop(reader);
    outcome
}

async fn read_timeout(cx: Cx) -> Result<(), Failure> {
    let (mut a, _echo, _stop) = echoed(&cx).await?;
    a.control().set_read_deadline(Some(long_ago()));
    cx.step("reading after the read deadline");
    timed_out("the read", &a.read(&mut [0; CHUNK]).await)?;
    cx.step("writing after the read deadline");
    let written = a.write(&[0; CHUNK]).await;
    written.expecting("the write to succeed").map(drop)
}

async fn write_timeout(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    send(&mut b, &[0; CHUNK]).await?;
    a.control().set_write_deadline(Some(long_ago()));
    cx.step("writing after the write deadline");
    timed_out("the write", &a.write(&[0; CHUNK]).await)?;
    cx.step("reading after the write deadline");
    let read = a.read(&mut [0; CHUNK]).await;
    read.expecting("the read to succeed").map(drop)
}

async fn past_timeout(cx: Cx) -> Result<(), Failure> {
    let (mut a, _echo, _stop) = echoed(&cx).await?;
    roundtrip(&cx, &mut a).await?;
    set_deadline(&*a.control(), Some(long_ago()));
    timed_out("the write", &a.write(&[0; CHUNK]).await)?;
    timed_out("the read", &a.read(&mut [0; CHUNK]).await)?;
    roundtrip(&cx, &mut a).await
}

async fn present_timeout(cx: Cx) -> Result<(), Failure> {
    let Pair {
        a,
        b: _b,
        stop: _stop,
    } = cx.pair().await?;
    let control = a.control();
    let (mut reader, mut writer) = split(a);
    let moment = Instant::now() + Duration::from_millis(100);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        sleep(Duration::from_millis(100)).await;
        set_deadline(&*control, Some(long_ago()));
        Ok(())
    });
    tasks.spawn(async move {
        let read = reader.read(&mut [0; CHUNK]).await;
        timed_out("the pending read", &read)?;
        not_before(moment, "the read")
    });
    tasks.spawn(async move {
        let written = until_error(&mut writer).await;
        timed_out("the pending write", &written)?;
        not_before(moment, "the write")
    });
    cx.step("waiting for pending operations to time out");
    join(&mut tasks).await
}

fn not_before(moment: Instant, what: &str) -> Result<(), Failure> {
    ensure(
        Instant::now() >= moment,
        format!("{what} to time out after the deadline was set"),
        "a timeout before",
    )
}

/// Writes until that fails.
async fn until_error(writer: &mut WriteHalf<End>) -> io::Result<()> {
    loop {
        let _ = writer.write(&[0; CHUNK]).await?;
    }
}

/// Reads until that fails or ends.
async fn until_end(reader: &mut ReadHalf<End>) {
    while let Ok(1..) = reader.read(&mut [0; CHUNK]).await {}
}

async fn future_timeout(cx: Cx) -> Result<(), Failure> {
    let Pair { a, b, stop: _stop } = cx.pair().await?;
    set_deadline(&*a.control(), Some(in_millis(100)));
    let (mut reader, mut writer) = split(a);
    cx.step("waiting for a deadline");
    let mut buf = [0; CHUNK];
    let (read, written) = tokio::join!(reader.read(&mut buf), until_error(&mut writer));
    timed_out("the read", &read)?;
    timed_out("the write", &written)?;
    let _echo = echo(b);
    let mut a = resync(&cx, reader.unsplit(writer)).await?;
    roundtrip(&cx, &mut a).await
}

async fn close_timeout(cx: Cx) -> Result<(), Failure> {
    let (a, _echo, _stop) = echoed(&cx).await?;
    let control = a.control();
    let (mut reader, mut writer) = split(a);
    let mut tasks = JoinSet::new();
    let pause = cx.clone();
    tasks.spawn(async move {
        pause.busy_pause().await;
        control.close();
        Ok(())
    });
    tasks.spawn(async move {
        until_end(&mut reader).await;
        Ok(())
    });
    tasks.spawn(async move {
        // Any error will do.
        let _ = until_error(&mut writer).await;
        Ok(())
    });
    cx.step("waiting for loops to end after a close");
    join(&mut tasks).await
}

async fn concurrent_methods(cx: Cx) -> Result<(), Failure> {
    let (a, _echo, _stop) = echoed(&cx).await?;
    let control = a.control();
    let (mut reader, mut writer) = split(a);
    cx.step("using everything at once");
    for _ in 0..100 {
        let read = async {
            // Data, a timeout: anything that returns.
            let _ = reader.read(&mut [0; CHUNK]).await;
        };
        let write = async {
            let _ = writer.write(&[0; CHUNK]).await;
        };
        let mut others = JoinSet::new();
        let methods: [fn(&dyn Control); 5] = [
            |control| set_deadline(control, Some(in_millis(10))),
            |control| control.set_read_deadline(Some(long_ago())),
            |control| control.set_write_deadline(Some(long_ago())),
            |control| drop(control.local_addr()),
            |control| drop(control.peer_addr()),
        ];
        for method in methods {
            let control = Arc::clone(&control);
            others.spawn(async move { method(&*control) });
        }
        let others = async { while others.join_next().await.is_some() {} };
        tokio::join!(read, write, others);
    }
    let mut a = resync(&cx, reader.unsplit(writer)).await?;
    roundtrip(&cx, &mut a).await
}

/// The size of Go's chunks.
const CHUNK: usize = 1024;

/// A byte that no other write contains.
const MARK: u8 = 0xff;
