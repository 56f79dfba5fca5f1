//! Several streams over one connection: none of them hurts the others.

mod cancel;
mod load;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::caps::Cap;
use crate::case::page;
use crate::context::{
    Cx, ensure, expect_end, join, receive, receive_to_end, send, send_and_shutdown,
};
use crate::mux::{FrameKind, Mux, MuxPair};
use crate::pair::End;
use crate::report::{Expecting, Failure};
use crate::step::{CountingWaker, fill, park_read};

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
        secs: 20, needs: [Mux, BothOpen], Tasks: both_open,
    }
    OPEN_CLOSE_STORM = "mux.open_close_storm", "thousands of short streams" {
        promise: "Two thousand streams, opened, used and finished one after the other, all work, and so does the next.",
        source: "Go's net.Conn: connections are cheap",
        bug: "finished streams that count against a limit for ever",
        secs: 60, needs: [Mux], Tasks: open_close_storm,
    }
    ACCEPT_BACKLOG = "mux.accept_backlog", "streams wait to be accepted" {
        promise: "Fifty streams, or as many as are claimed, that are opened and written before anybody accepts are all accepted with their data.",
        source: "POSIX listen(2): the backlog",
        bug: "a session that stalls until somebody accepts",
        secs: 20, needs: [Mux], Tasks: accept_backlog,
    }
    MAX_STREAMS = "mux.max_streams_is_stream_error", "one stream too many" {
        promise: "The stream beyond the limit carries nothing, and the others work on.",
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
        secs: 60, needs: [Mux, Layered], Virtual: load::fair,
    }
    LATENCY_UNDER_BULK = "mux.latency_under_bulk", "small messages overtake bulk" {
        promise: "While four streams fill a line of 10 MB/s, a 64-byte message on a fifth returns within 20 ms in the median.",
        source: "RFC 8290: queueing delay under load",
        bug: "tokio-yamux 0.3.20 needs 125 ms; frp and chisel users see interactive sessions freeze",
        secs: 60, needs: [Mux, Layered], Virtual: load::latency_under_bulk,
    }
    CONTROL_NOT_BLOCKED = "mux.control_not_blocked", "openings and ends overtake bulk" {
        promise: "While streams fill a line of 10 MB/s in both directions, another is opened, used and ended within 100 ms in the median.",
        source: "RFC 9113 section 5.2: flow control never concerns control frames",
        bug: "openings, resets and window updates that queue behind megabytes of data",
        secs: 60, needs: [Mux, Layered], Virtual: load::control_not_blocked,
    }
    COOP = "mux.coop", "a stream that is always ready yields" {
        promise: "A task that reads a full stream byte by byte in one poll is stopped after a thousand reads at most, so that others run.",
        source: "tokio::task::coop: resources take part in the budget",
        bug: "one busy stream that starves every other task of its thread, keep-alive timers among them",
        secs: 20, needs: [Mux, Yields], Tasks: load::coop,
    }
    ID_REUSE = "mux.id_reuse_and_exhaustion", "stream ids do not run out" {
        promise: "While one stream stays open, 33,000 others come and go; none of them fails, and the first is untouched.",
        source: "the yamux specification: 32-bit stream ids, never reused while open",
        bug: "ids of 16 bits that wrap around into a stream that is still open",
        secs: 120, needs: [Mux], Virtual: id_reuse,
    }
    UNSOLICITED_PONG = "mux.unsolicited_pong", "an answer that nobody asked for" {
        promise: "An answer to a ping that was never sent is ignored: the session and its streams go on.",
        source: "RFC 9113 section 6.7 and RFC 6455 section 5.5.3: an unsolicited pong needs no response",
        bug: "yamux 0.14.1 ends the session with a protocol error",
        secs: 10, needs: [Mux, Frames, Layered], Tasks: unsolicited_pong,
    }
    SILENT_ACCEPTOR = "mux.silent_acceptor", "silence is no failure" {
        promise: "A stream whose acceptor is silent for ten minutes still works, and so does its session.",
        source: "hashicorp/yamux: StreamOpenTimeout concerns the handshake of a stream",
        bug: "a lazy acknowledgement, at whose absence hashicorp/yamux closes the session after 75 s",
        secs: 3600, needs: [Mux], Virtual: silent_acceptor,
    }
    GOAWAY_DRAINS = "mux.goaway_drains", "a farewell lets streams finish" {
        promise: "After a go-away the open streams finish with all their data, and no new one is opened.",
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
        secs: 20, needs: [Mux], Steps: cancel::open,
    }
    CANCEL_DIAL = "cancel.dial", "a late answer finds nobody" {
        promise: "The answer to an open that was given up reaches no later one: that one gets its own stream, and the other ends.",
        source: "tokio's definition of cancel safety",
        bug: "Go's revdial v2: any waiting dial takes any connection that arrives",
        secs: 20, needs: [Mux, Layered], Steps: cancel::dial,
    }
    CANCEL_ACCEPT = "cancel.accept", "a dropped accept loses no stream" {
        promise: "However often a pending accept is dropped, every stream that was opened is accepted.",
        source: "tokio's definition of cancel safety",
        bug: "a stream that was taken from the queue by a future that nobody polls any more",
        secs: 20, needs: [Mux], Steps: cancel::accept,
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
        // Whether it succeeds is `io.zero_write`'s business.
        let _ = end.write(&[]).await;
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
            send_and_shutdown(&mut end, &[i; 100]).await?;
            receive_to_end(&mut end, &[i; 100]).await
        });
    }
    for i in 0..20_u8 {
        let mux = Arc::clone(sides[usize::from(i % 2)]);
        tasks.spawn(async move {
            let mut end = accept(&*mux).await?;
            let mut buf = [0; 100];
            end.read_exact(&mut buf).await.expecting("100 bytes")?;
            expect_end(&mut end).await?;
            send_and_shutdown(&mut end, &buf).await
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
    let count = match cx.caps().stream_limit() {
        0 => 50,
        limit => u8::try_from(limit.min(50)).unwrap_or(50),
    };
    let mut opened = Vec::new();
    for i in 0..count {
        cx.step(format!("opening stream {i} while nobody accepts"));
        let mut end = open(&*session.client).await?;
        send_and_shutdown(&mut end, &[i]).await?;
        opened.push(end);
    }
    let mut seen = Vec::new();
    for i in 0..count {
        cx.step(format!("accepting stream {i}"));
        let mut end = accept(&*session.server).await?;
        seen.push(end.read_u8().await.expecting("a byte")?);
        opened.push(end);
    }
    seen.sort_unstable();
    ensure(
        seen.iter().copied().eq(0..count),
        format!("each of {count} streams once"),
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
        end.flush().await?;
        Ok::<_, std::io::Error>(end)
    };
    let admitted = async {
        while let Ok(Some(mut end)) = session.server.accept().await {
            if end.read_u8().await.is_ok() {
                return true;
            }
        }
        false
    };
    // A refusal, or an open that waits for a place: what counts is that nothing comes of it.
    let patience = Duration::from_millis(200);
    let (_opened, admitted) = tokio::join!(
        tokio::time::timeout(patience, excess),
        tokio::time::timeout(patience, admitted)
    );
    ensure(
        !matches!(admitted, Ok(true)),
        format!("a refusal of stream {limit}"),
        "one that carries data",
    )?;
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
    let (session, splice) = if cx.caps().has(Cap::Frames) {
        let (session, splice) = cx.spliced_session().await?;
        (session, Some(splice))
    } else {
        (cx.session().await?, None)
    };
    let (mut a, mut b) = stream(&session).await?;
    exchange(&mut a, &mut b).await?;
    cx.step("saying farewell");
    match splice {
        // What the other side makes of it is what counts, so the frame itself will do.
        Some(splice) => splice.slip(&cx.frame(FrameKind::GoAway)?),
        None => session.server.go_away().await.expecting("a go-away")?,
    }
    cx.settle().await;
    let data = cx.rng().bytes(300_000);
    cx.step("finishing an open stream after a farewell");
    tokio::try_join!(
        send_and_shutdown(&mut b, &data),
        receive_to_end(&mut a, &data)
    )?;
    cx.step("opening a stream after a farewell");
    let opened = tokio::time::timeout(Duration::from_millis(200), session.client.open()).await;
    ensure(
        !matches!(opened, Ok(Ok(_))),
        "no new stream after a go-away",
        "an open one",
    )
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

async fn id_reuse(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    let (mut first, mut first_peer) = stream(&session).await?;
    exchange(&mut first, &mut first_peer).await?;
    for i in 0..33_000 {
        cx.step(format!("using stream {i} beside the first"));
        let (mut a, mut b) = stream(&session).await?;
        tokio::try_join!(
            send_and_shutdown(&mut a, b"x"),
            receive_to_end(&mut b, b"x")
        )?;
        b.shutdown().await.expecting("a shutdown to succeed")?;
        expect_end(&mut a).await?;
    }
    cx.step("using the first stream again");
    exchange(&mut first, &mut first_peer).await
}

async fn unsolicited_pong(cx: Cx) -> Result<(), Failure> {
    let (session, splice) = cx.spliced_session().await?;
    let (mut a, mut b) = stream(&session).await?;
    exchange(&mut a, &mut b).await?;
    splice.slip(&cx.frame(FrameKind::Pong)?);
    cx.settle().await;
    ensure(splice.is_done(), "the pong to be sent", "it waits")?;
    cx.step("using streams after a pong that nobody asked for");
    exchange(&mut a, &mut b).await?;
    let (mut a, mut b) = stream(&session).await?;
    exchange(&mut a, &mut b).await
}
