//! Several streams over one connection: none of them hurts the others.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::case::page;
use crate::context::{Cx, ensure, join, receive, receive_to_end, send, send_and_shutdown};
use crate::fault::Rate;
use crate::mux::{Mux, MuxPair};
use crate::pair::{End, Wire, pipe};
use crate::report::{Expecting, Failure};
use crate::step::{CountingWaker, Step, fill, park_read};

page! { Mux;
    ACCEPTOR_SPEAKS_FIRST = "mux.acceptor_speaks_first", "the acceptor may speak first" {
        promise: "A stream that was opened is accepted, and its acceptor may send before the opener does.",
        source: "Go's net.Listener: Accept returns when a peer has connected",
        bug: "yamux 0.14.1 announces a stream with its first write: the acceptor waits for ever",
        secs: 10, needs: [Mux], Tasks: acceptor_speaks_first,
    }
    BOTH_OPEN = "mux.both_open_simultaneously", "both sides may open" {
        promise: "Streams that both sides open at the same time are distinct and all work.",
        source: "the yamux specification: odd and even stream ids",
        bug: "two streams that share an id",
        secs: 20, needs: [Mux], Tasks: both_open,
    }
    OPEN_CLOSE_STORM = "mux.open_close_storm", "thousands of short streams" {
        promise: "Two thousand streams, opened, used and finished one after the other, all work, and so does the next.",
        source: "Go's net.Conn: connections are cheap",
        bug: "finished streams that count against a limit for ever",
        secs: 60, needs: [Mux], Tasks: open_close_storm,
    }
    ACCEPT_BACKLOG = "mux.accept_backlog", "streams wait to be accepted" {
        promise: "Fifty streams that are opened and written before anybody accepts are all accepted with their data.",
        source: "POSIX listen(2): the backlog",
        bug: "a session that stalls until somebody accepts",
        secs: 20, needs: [Mux], Tasks: accept_backlog,
    }
    MAX_STREAMS = "mux.max_streams_is_stream_error", "one stream too many" {
        promise: "The stream beyond the limit fails alone: the others work on.",
        source: "RFC 9113 section 5.1.2: REFUSED_STREAM concerns one stream",
        bug: "yamux 0.14.1 ends the whole connection at one stream too many",
        secs: 20, needs: [Mux, StreamLimit], Tasks: max_streams,
    }
    SLOW_READER_ISOLATED = "bp.slow_reader_isolated", "a slow reader harms nobody else" {
        promise: "With a stream that nobody reads, filled by 300 one-byte writes and then by all it takes, another stream works.",
        source: "RFC 9113 section 5.2: flow control for each stream",
        bug: "tokio-yamux 0.3.20 blocks the session at its ninth unread frame; xtaci/smux#18",
        secs: 20, needs: [Mux], Tasks: slow_reader_isolated,
    }
    SESSION_CLOSE = "close.local_session_close_wakes_streams", "closing the session ends its streams" {
        promise: "A pending read of a stream is woken and fails when its own session is closed.",
        source: "Go's net.Conn: Close unblocks Read",
        bug: "libp2p/rust-yamux#216: a parked read hangs",
        secs: 20, needs: [Mux, SessionClose], Steps: session_close,
    }
    FAIR = "mux.fair", "bytes are shared fairly" {
        promise: "Over a slow line, streams with large and small writes get equal shares (Jain's index 0.95 or more).",
        source: "Jain, Chiu, Hawe, \"A quantitative measure of fairness\", 1984",
        bug: "yamux 0.14.1 serves frames, not bytes: a writer of 1000 bytes gets a twentieth",
        secs: 60, needs: [Mux, Layered], Virtual: fair,
    }
    LATENCY_UNDER_BULK = "mux.latency_under_bulk", "small messages overtake bulk" {
        promise: "While four streams fill a line of 10 MB/s, a 64-byte message on a fifth returns within 50 ms in the median.",
        source: "RFC 8290: queueing delay under load",
        bug: "tokio-yamux 0.3.20 needs 125 ms; frp and chisel users see interactive sessions freeze",
        secs: 60, needs: [Mux, Layered], Virtual: latency_under_bulk,
    }
    SILENT_ACCEPTOR = "mux.silent_acceptor", "silence is no failure" {
        promise: "A stream whose acceptor is silent for ten minutes still works, and so does its session.",
        source: "hashicorp/yamux: StreamOpenTimeout concerns the handshake of a stream",
        bug: "a lazy acknowledgement, at whose absence hashicorp/yamux closes the session after 75 s",
        secs: 3600, needs: [Mux], Virtual: silent_acceptor,
    }
    GOAWAY_DRAINS = "mux.goaway_drains", "a farewell lets streams finish" {
        promise: "After a go-away the open streams finish with all their data.",
        source: "the yamux specification, Go Away; RFC 9113 section 6.8",
        bug: "yamux 0.14.1 loses bytes after a go-away and shows a clean end",
        secs: 20, needs: [Mux, GoAway], Tasks: goaway_drains,
    }
    PING_UNDER_LOAD = "mux.ping_under_load", "pings are answered under load" {
        promise: "While a stream is full and unread, a ping is answered.",
        source: "the yamux specification, Ping",
        bug: "keep-alive that kills healthy sessions under load (hashicorp/nomad#25380)",
        secs: 20, needs: [Mux, Ping], Tasks: ping_under_load,
    }
    CANCEL_OPEN = "cancel.open", "a dropped open harms nobody" {
        promise: "After opens that were polled once and dropped, opening and accepting work.",
        source: "tokio's definition of cancel safety",
        bug: "an answer that reaches the next dial in place of the one that was given up (Go's revdial v2)",
        secs: 20, needs: [Mux], Steps: cancel_open,
    }
    CANCEL_ACCEPT = "cancel.accept", "a dropped accept loses no stream" {
        promise: "However often a pending accept is dropped, every stream that was opened is accepted.",
        source: "tokio's definition of cancel safety",
        bug: "a stream that was taken from the queue by a future that nobody polls any more",
        secs: 20, needs: [Mux], Steps: cancel_accept,
    }
}

/// Accepts a stream; the end of the session is a failure.
pub(super) async fn accept(mux: &dyn Mux) -> Result<End, Failure> {
    let accepted = mux.accept().await.expecting("a stream to accept")?;
    accepted.ok_or_else(|| Failure::new("a stream to accept", "the end of the session"))
}

async fn open(mux: &dyn Mux) -> Result<End, Failure> {
    mux.open().await.expecting("a stream to open")
}

/// A stream in both hands. It is announced by an empty write where opening alone does not.
pub(super) async fn stream(session: &MuxPair) -> Result<(End, End), Failure> {
    let opened = async {
        let mut end = open(&*session.client).await?;
        let _ = end.write(&[]).await.expecting("an empty write")?;
        end.flush().await.expecting("a flush to succeed")?;
        Ok(end)
    };
    tokio::try_join!(opened, accept(&*session.server))
}

/// Sends a word there and another one back.
pub(super) async fn exchange(a: &mut End, b: &mut End) -> Result<(), Failure> {
    tokio::try_join!(send(a, b"there"), receive(b, b"there"))?;
    tokio::try_join!(send(b, b"back"), receive(a, b"back")).map(drop)
}

async fn acceptor_speaks_first(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    cx.step("opening a stream without a write");
    let (mut a, mut b) = tokio::try_join!(open(&*session.client), accept(&*session.server))?;
    cx.step("the acceptor speaking first");
    tokio::try_join!(send(&mut b, b"welcome"), receive(&mut a, b"welcome")).map(drop)
}

async fn both_open(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    let sides = [&session.client, &session.server];
    let mut tasks = JoinSet::new();
    for i in 0..20_u8 {
        let mux = Arc::clone(sides[usize::from(i % 2)]);
        tasks.spawn(async move {
            let mut end = open(&*mux).await?;
            send(&mut end, &[i; 100]).await?;
            receive(&mut end, &[i; 100]).await
        });
    }
    for i in 0..20_u8 {
        let mux = Arc::clone(sides[usize::from(i % 2)]);
        tasks.spawn(async move {
            let mut end = accept(&*mux).await?;
            let mut buf = [0; 100];
            end.read_exact(&mut buf).await.expecting("100 bytes")?;
            send_and_shutdown(&mut end, &buf).await?;
            // Until the opener has read its answer and gone.
            let _ = end.read(&mut [0]).await;
            Ok(())
        });
    }
    cx.step("opening from both sides");
    join(&mut tasks).await
}

async fn open_close_storm(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    for i in 0..2000 {
        cx.step(format!("using stream {i}"));
        let (mut a, mut b) = stream(&session).await?;
        tokio::try_join!(
            send_and_shutdown(&mut a, b"x"),
            receive_to_end(&mut b, b"x")
        )?;
        tokio::try_join!(
            send_and_shutdown(&mut b, b"y"),
            receive_to_end(&mut a, b"y")
        )?;
    }
    Ok(())
}

async fn accept_backlog(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    let mut opened = Vec::new();
    for i in 0..50_u8 {
        cx.step(format!("opening stream {i} while nobody accepts"));
        let mut end = open(&*session.client).await?;
        send_and_shutdown(&mut end, &[i]).await?;
        opened.push(end);
    }
    let mut seen = Vec::new();
    for i in 0..50 {
        cx.step(format!("accepting stream {i}"));
        let mut end = accept(&*session.server).await?;
        seen.push(end.read_u8().await.expecting("a byte")?);
        opened.push(end);
    }
    seen.sort_unstable();
    ensure(
        seen.iter().copied().eq(0..50),
        "each of 50 streams once",
        format!("{seen:?}"),
    )
}

async fn max_streams(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    let limit = cx.caps().stream_limit();
    let mut streams = Vec::new();
    for i in 0..limit {
        cx.step(format!("opening stream {i} of {limit}"));
        streams.push(stream(&session).await?);
    }
    cx.step("opening one stream too many");
    let excess = async {
        let mut end = session.client.open().await?;
        end.write_all(b"x").await?;
        end.read_u8().await
    };
    // A refusal, or an open that waits for a place.
    if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(200), excess).await {
        return Err(Failure::new("a refusal of the stream", "an answer"));
    }
    for (i, (a, b)) in streams.iter_mut().enumerate() {
        cx.step(format!("using stream {i} after one too many"));
        exchange(a, b)
            .await
            .map_err(|failure| failure.at(format!("on stream {i} after one too many")))?;
    }
    Ok(())
}

async fn slow_reader_isolated(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    let (mut full, _unread) = stream(&session).await?;
    let (mut a, mut b) = stream(&session).await?;
    cx.step("writing single bytes that nobody reads");
    for _ in 0..300 {
        let written = tokio::time::timeout(Duration::from_millis(50), send(&mut full, b"x")).await;
        match written {
            Ok(written) => written?,
            Err(_) => break,
        }
    }
    cx.step("using another stream");
    exchange(&mut a, &mut b).await?;
    let chunk = vec![0; 16 * 1024];
    loop {
        let written = tokio::time::timeout(Duration::from_millis(50), full.write(&chunk)).await;
        match written {
            Ok(written) => drop(written.expecting("a write to succeed")?),
            Err(_) => break,
        }
    }
    cx.step("using another stream while one is full");
    for _ in 0..10 {
        exchange(&mut a, &mut b).await?;
    }
    Ok(())
}

async fn session_close(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    let (mut a, _b) = stream(&session).await?;
    let waker = CountingWaker::new();
    park_read(&mut a, &waker)?;
    cx.step("closing the session");
    let close = cx.within("the close to end", session.client.close());
    // The close may report what it found; that it ends is what matters.
    let _ = close.await?;
    cx.until("the pending read to be woken", || waker.wakes() > 0)
        .await?;
    let mut byte = [0];
    let read = cx.within("the read to end", a.read(&mut byte)).await?;
    ensure(read.is_err(), "the read to fail", format!("{read:?}"))
}

/// A session over a line of so many bytes per second each way.
async fn slow_session(cx: &Cx, bytes_per_second: usize) -> Result<MuxPair, Failure> {
    let (a, b) = pipe();
    let slow = |wire| -> Wire { Box::new(Rate::new(wire, bytes_per_second)) };
    cx.session_over(slow(a), slow(b)).await
}

/// Streams that write without end, in pieces of these sizes, to readers that count.
async fn bulk(
    session: &MuxPair,
    tasks: &mut JoinSet<Result<(), Failure>>,
    sizes: &[usize],
) -> Result<Vec<Arc<std::sync::atomic::AtomicUsize>>, Failure> {
    let mut counts = Vec::new();
    for &size in sizes {
        let (a, mut b) = stream(session).await?;
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        counts.push(Arc::clone(&count));
        let (mut unused, mut writer) = split(a);
        // Some multiplexers hear of window updates only where somebody reads.
        tasks.spawn(async move {
            let _ = unused.read(&mut [0]).await;
            Ok(())
        });
        tasks.spawn(async move {
            let chunk = vec![7; size];
            while writer.write_all(&chunk).await.is_ok() {}
            Ok(())
        });
        tasks.spawn(async move {
            let mut buf = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = b.read(&mut buf).await {
                count.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        });
    }
    Ok(counts)
}

async fn fair(cx: Cx) -> Result<(), Failure> {
    let session = slow_session(&cx, 2_000_000).await?;
    let mut tasks = JoinSet::new();
    let counts = bulk(&session, &mut tasks, &[65_536, 65_536, 65_536, 1000]).await?;
    let totals = || -> Vec<f64> {
        let load = |count: &Arc<std::sync::atomic::AtomicUsize>| {
            count.load(std::sync::atomic::Ordering::Relaxed)
        };
        let total = |count| u32::try_from(load(count)).map_or(f64::MAX, f64::from);
        counts.iter().map(total).collect()
    };
    cx.step("sharing a line of 2 MB/s among four writers");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = totals();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let shares: Vec<f64> = totals().iter().zip(start).map(|(a, b)| a - b).collect();
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    let jain = sum * sum / (4.0 * squares.max(1.0));
    ensure(
        jain >= 0.95,
        "Jain's index of 0.95 or more",
        format!("{jain:.2}, the last writing 1000 bytes at a time: {shares:?} bytes in 4 s"),
    )
}

async fn latency_under_bulk(cx: Cx) -> Result<(), Failure> {
    let session = slow_session(&cx, 10_000_000).await?;
    let (mut a, mut b) = stream(&session).await?;
    let mut tasks = JoinSet::new();
    bulk(&session, &mut tasks, &[65_536; 4]).await?;
    cx.step("sending small messages under load");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut times = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        tokio::try_join!(send(&mut a, &[1; 64]), receive(&mut b, &[1; 64]))?;
        tokio::try_join!(send(&mut b, &[2; 64]), receive(&mut a, &[2; 64]))?;
        times.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    ensure(
        median <= Duration::from_millis(50),
        "a median of 50 ms or less",
        format!("{median:?}"),
    )
}

async fn silent_acceptor(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    let (mut a, mut b) = stream(&session).await?;
    cx.step("saying nothing for ten minutes");
    tokio::time::sleep(Duration::from_secs(600)).await;
    exchange(&mut a, &mut b).await?;
    let (mut a, mut b) = stream(&session).await?;
    exchange(&mut a, &mut b).await
}

async fn goaway_drains(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    let (mut a, mut b) = stream(&session).await?;
    exchange(&mut a, &mut b).await?;
    cx.step("saying farewell");
    session.server.go_away().await.expecting("a go-away")?;
    cx.settle().await;
    let data = cx.rng().bytes(300_000);
    cx.step("finishing an open stream after a farewell");
    tokio::try_join!(
        send_and_shutdown(&mut b, &data),
        receive_to_end(&mut a, &data)
    )
    .map(drop)
}

async fn ping_under_load(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    let (mut a, _unread) = stream(&session).await?;
    let waker = CountingWaker::new();
    fill(&cx, &mut a, &waker).await?;
    for _ in 0..5 {
        let ping = cx.within("the answer to a ping", session.client.ping());
        ping.await?.expecting("the answer to a ping")?;
    }
    Ok(())
}

async fn cancel_open(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    for _ in 0..20 {
        // Ready or pending: the stream or the future is dropped.
        drop(Step::new(session.client.open()).poll());
        cx.settle().await;
    }
    cx.step("opening after opens that were dropped");
    let mut a = open(&*session.client).await?;
    let word = async {
        send(&mut a, b"kept").await?;
        receive(&mut a, b"heard").await
    };
    let find = async {
        // Dropped streams may have been announced; they carry nothing.
        loop {
            let mut end = accept(&*session.server).await?;
            let mut word = [0; 4];
            if end.read_exact(&mut word).await.is_ok() {
                send(&mut end, b"heard").await?;
                return Ok(end);
            }
        }
    };
    tokio::try_join!(word, find).map(drop)
}

async fn cancel_accept(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    let mut kept = Vec::new();
    for i in 0..20_u8 {
        cx.step(format!(
            "accepting stream {i} after accepts that were dropped"
        ));
        drop(Step::new(session.server.accept()).poll());
        let mut a = open(&*session.client).await?;
        send(&mut a, &[i]).await?;
        cx.settle().await;
        let early = Step::new(session.server.accept()).poll();
        let mut b = match early {
            std::task::Poll::Ready(accepted) => accepted
                .expecting("a stream to accept")?
                .ok_or_else(|| Failure::new("a stream", "the end of the session"))?,
            std::task::Poll::Pending => accept(&*session.server).await?,
        };
        receive(&mut b, &[i]).await?;
        kept.push((a, b));
    }
    Ok(())
}
