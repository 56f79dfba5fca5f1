//! Bytes in both directions: all of them, in order, whatever the sizes.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, split};
use tokio::task::JoinSet;

use crate::case::page;
use crate::context::{
    Cx, ensure, receive, receive_in, receive_to_end, same, send, send_and_shutdown, send_in,
};
use crate::fault::{Chop, Storm, Tap};
use crate::pair::{Pair, Wire, pipe};
use crate::report::{Expecting, Failure, describe};
use crate::step::{CountingWaker, poll_read, poll_write};

page! { Io;
    BULK = "io.bulk", "a MiB in both directions at once" {
        promise: "A MiB sent each way at the same time, by four tasks, arrives complete and in order.",
        source: "tokio's AsyncRead and AsyncWrite; nettest BasicIO, both ways",
        bug: "a mutual write deadlock when reads stop while a write is pending (libp2p/rust-yamux#102, #112)",
        secs: 30, needs: [], Tasks: bulk,
    }
    PINGPONG = "io.pingpong", "a counter goes to and fro" {
        promise: "A thousand eight-byte messages are answered one by one.",
        source: "nettest PingPong",
        bug: "small messages that wait for a buffer to fill",
        secs: 30, needs: [], Tasks: pingpong,
    }
    CHUNK_MATRIX = "io.chunk_matrix", "odd sizes of writes and reads" {
        promise: "Every size of write, from 1 byte to a MiB, meets every size of read without loss.",
        source: "tokio's AsyncRead and AsyncWrite",
        bug: "a byte lost or doubled where a chunk meets the edge of a buffer",
        secs: 60, needs: [], Tasks: chunk_matrix,
    }
    ZERO_READ = "io.zero_read", "a read into no room" {
        promise: "With data waiting, a read into an empty buffer is ready, takes nothing and is no end of the stream.",
        source: "tokio's AsyncRead: a zero-byte read means the end or a buffer without capacity",
        bug: "yamux 0.14.1 is pending on a zero-length read with data queued",
        secs: 10, needs: [], Steps: zero_read,
    }
    ZERO_WRITE = "io.zero_write", "a write of nothing" {
        promise: "A write of no bytes is ready with 0, and the peer notices nothing.",
        source: "tokio's AsyncWrite",
        bug: "an empty write that reaches the peer as the end of the stream",
        secs: 10, needs: [], Steps: zero_write,
    }
    ZERO_WRITE_SILENT = "io.zero_write_silent", "a write of nothing sends nothing" {
        promise: "A write of no bytes, and the flush behind it, put nothing on the wire.",
        source: "tokio's AsyncWrite; POSIX write(2) with a count of 0",
        bug: "yamux 0.14.1 and tokio-yamux 0.3.20 send an empty frame, and so bytes that nobody accounts for",
        secs: 10, needs: [Layered], Steps: zero_write_silent,
    }
    VECTORED_EQ = "io.vectored_eq", "vectored writes are concatenation" {
        promise: "A vectored write takes a prefix of its buffers put end to end, with empty ones among them and more than 1024 of them.",
        source: "tokio's AsyncWrite::poll_write_vectored",
        bug: "a wrapper that takes the first buffer and reports the sum, or 0 for an empty first buffer",
        secs: 10, needs: [], Tasks: vectored_eq,
    }
    VECTORED_HONEST = "io.vectored_honest", "vectored writes use more than one buffer" {
        promise: "Where is_write_vectored is true, a vectored write of two small buffers takes both.",
        source: "tokio's AsyncWrite::is_write_vectored",
        bug: "a wrapper that says it is vectored and falls back to the first buffer",
        secs: 10, needs: [Vectored], Tasks: vectored_honest,
    }
    READBUF_DISCIPLINE = "io.readbuf_discipline", "a read only appends" {
        promise: "A read leaves what the buffer holds, and adds no more than it read.",
        source: "tokio's ReadBuf",
        bug: "adapters that clear the buffer or fill it from its start",
        secs: 10, needs: [], Steps: readbuf_discipline,
    }
    READ_PARTIAL = "io.read_partial", "a read does not wait for a full buffer" {
        promise: "A read into a large buffer returns the few bytes that have come.",
        source: "tokio's AsyncRead: data is placed as soon as any is available",
        bug: "adapters that fill their buffer before they return, and so hang on interactive traffic",
        secs: 10, needs: [], Steps: read_partial,
    }
    ONE_BYTE = "io.one_byte", "a pipe that takes one byte at a time" {
        promise: "Over a pipe that passes one byte per read and write, everything arrives.",
        source: "tokio's AsyncRead and AsyncWrite: short reads and writes are normal",
        bug: "a header parser that expects its header in one read",
        secs: 30, needs: [Layered], Tasks: one_byte,
    }
    CHOPPED = "io.chopped", "a pipe that takes odd pieces" {
        promise: "Over a pipe that passes pieces of random size, everything arrives, both ways at once.",
        source: "tokio's AsyncRead and AsyncWrite: short reads and writes are normal",
        bug: "a frame body that is resumed at the wrong offset",
        secs: 30, needs: [Layered], Tasks: chopped,
    }
    PENDING_STORM = "io.pending_storm", "a pipe that is pending for no reason" {
        promise: "Over a pipe that is pending at half of its polls, everything arrives, both ways at once.",
        source: "Rust's Future contract: pending may come at any poll",
        bug: "state that is lost when a poll is interrupted between two steps",
        secs: 30, needs: [Layered], Tasks: pending_storm,
    }
}

/// Sends `len` bytes each way at once, on four tasks, and waits for all of them.
async fn both_ways(cx: &Cx, pair: Pair, len: usize) -> Result<(), Failure> {
    let mut rng = cx.rng();
    let (there, back) = (rng.bytes(len), rng.bytes(len));
    let Pair { a, b, stop } = pair;
    let mut tasks = JoinSet::new();
    for (end, out, expected) in [(a, there.clone(), back.clone()), (b, back, there)] {
        let (mut reader, mut writer) = split(end);
        tasks.spawn(async move {
            send(&mut writer, &out).await?;
            Ok(Side::Writer(writer))
        });
        tasks.spawn(async move {
            receive(&mut reader, &expected).await?;
            Ok(Side::Reader(reader))
        });
    }
    cx.step("sending both ways at once");
    let mut ends = Vec::new();
    while let Some(done) = tasks.join_next().await {
        ends.push(done.map_err(|error| Failure::new("no panic", error.to_string()))??);
    }
    drop((ends, stop));
    Ok(())
}

/// Keeps a half alive until its sisters are done: dropping one would end the connection.
#[expect(dead_code, reason = "held, not read")]
enum Side {
    Reader(tokio::io::ReadHalf<crate::pair::End>),
    Writer(tokio::io::WriteHalf<crate::pair::End>),
}

async fn bulk(cx: Cx) -> Result<(), Failure> {
    let pair = cx.pair().await?;
    both_ways(&cx, pair, 1 << 20).await
}

async fn pingpong(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    cx.step("playing ping-pong");
    let there = async {
        for i in 0..1000_u64 {
            send(&mut a, &i.to_le_bytes()).await?;
            receive(&mut a, &(i + 1).to_le_bytes()).await?;
        }
        a.shutdown().await.expecting("a shutdown to succeed")?;
        Ok(a)
    };
    let back = async {
        for i in 0..1000_u64 {
            receive(&mut b, &i.to_le_bytes()).await?;
            send(&mut b, &(i + 1).to_le_bytes()).await?;
        }
        b.shutdown().await.expecting("a shutdown to succeed")?;
        Ok(b)
    };
    tokio::try_join!(there, back).map(drop)
}

async fn chunk_matrix(cx: Cx) -> Result<(), Failure> {
    const SIZES: [usize; 14] = [
        1,
        2,
        3,
        7,
        4095,
        4096,
        4097,
        16_383,
        16_384,
        16_385,
        65_535,
        65_536,
        65_537,
        1 << 20,
    ];
    let Pair { a, b, stop: _stop } = cx.pair().await?;
    let (mut a, mut b) = (a, b);
    let data = cx.rng().bytes((1 << 20) + 1);
    for write in SIZES {
        for read in SIZES {
            cx.step(format!("writing by {write} and reading by {read}"));
            // A few hundred of the smaller pieces: they cross the edges of the larger ones.
            let data = &data[..(300 * write.min(read)).clamp(1000, data.len())];
            tokio::try_join!(send_in(&mut a, data, write), receive_in(&mut b, data, read))?;
        }
    }
    Ok(())
}

async fn zero_read(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    send(&mut a, b"data").await?;
    let mut first = [0];
    cx.step("reading the first byte");
    b.read_exact(&mut first).await.expecting("a byte")?;
    let waker = CountingWaker::new();
    for poll in 1..=3 {
        match poll_read(&mut b, &mut waker.context(), &mut []) {
            Poll::Ready(Ok(0)) => {}
            Poll::Ready(Ok(n)) => {
                return Err(Failure::new("0 bytes", format!("{n}")).at(format!("at poll {poll}")));
            }
            Poll::Ready(Err(error)) => {
                return Err(Failure::new("0 bytes", describe(&error)).at(format!("at poll {poll}")));
            }
            Poll::Pending => {
                return Err(Failure::new(
                    "a read into no room to be ready while data waits",
                    "pending",
                )
                .at(format!("at poll {poll}")));
            }
        }
    }
    cx.step("reading the rest");
    receive(&mut b, b"ata").await
}

async fn zero_write(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let waker = CountingWaker::new();
    cx.step("writing nothing");
    match poll_write(&mut a, &mut waker.context(), &[]) {
        Poll::Ready(Ok(0)) => {}
        Poll::Ready(Ok(n)) => return Err(Failure::new("a write of 0 bytes", format!("of {n}"))),
        Poll::Ready(Err(error)) => {
            return Err(Failure::new("a write of 0 bytes", describe(&error)));
        }
        Poll::Pending => return Err(Failure::new("a write of nothing to be ready", "pending")),
    }
    a.flush().await.expecting("a flush to succeed")?;
    cx.settle().await;
    let mut byte = [0];
    match poll_read(&mut b, &mut waker.context(), &mut byte) {
        Poll::Pending => {}
        Poll::Ready(Ok(0)) => return Err(Failure::new("a pending read", "the end of the stream")),
        Poll::Ready(Ok(_)) => return Err(Failure::new("a pending read", "a byte")),
        Poll::Ready(Err(error)) => return Err(Failure::new("a pending read", describe(&error))),
    }
    send(&mut a, b"x").await?;
    cx.step("reading after an empty write");
    receive(&mut b, b"x").await
}

async fn zero_write_silent(cx: Cx) -> Result<(), Failure> {
    let (wire, other) = pipe();
    let (wire, log) = Tap::new(wire);
    let Pair {
        mut a,
        b: _b,
        stop: _stop,
    } = cx.pair_over(Box::new(wire), other).await?;
    send(&mut a, b"x").await?;
    cx.settle().await;
    cx.step("writing nothing");
    let before = log.written();
    let waker = CountingWaker::new();
    // Whether it is ready is `io.zero_write`'s business.
    let _ = poll_write(&mut a, &mut waker.context(), &[]);
    a.flush().await.expecting("a flush to succeed")?;
    cx.settle().await;
    let more = log.written() - before;
    ensure(
        more == 0,
        "no byte on the wire after a write of nothing",
        format!("{more} bytes"),
    )
}

async fn vectored_eq(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let data = cx.rng().bytes(6000);
    let shapes: [&[usize]; 4] = [&[0, 10, 0, 0, 20, 5], &[1; 1500], &[3000, 1, 2999], &[0, 1]];
    for (i, shape) in shapes.iter().enumerate() {
        cx.step(format!("writing shape {i} of buffers"));
        let total: usize = shape.iter().sum();
        let data = &data[..total];
        let writer = async {
            let mut done = 0;
            while done < total {
                let slices = slices(data, shape, done);
                let n = a
                    .write_vectored(&slices)
                    .await
                    .expecting("a vectored write to succeed")?;
                ensure(
                    n > 0 && n <= total - done,
                    format!("1 to {} bytes taken", total - done),
                    format!("{n}"),
                )?;
                done += n;
            }
            a.flush().await.expecting("a flush to succeed")
        };
        tokio::try_join!(writer, receive(&mut b, data))
            .map_err(|failure| failure.at(format!("in shape {i}")))?;
    }
    Ok(())
}

/// Cuts `data` into buffers of the lengths in `shape`, without the first `skip` bytes and the buffers that held them.
fn slices<'a>(data: &'a [u8], shape: &[usize], skip: usize) -> Vec<IoSlice<'a>> {
    let mut start = 0;
    let mut slices = Vec::new();
    for len in shape {
        let end = start + len;
        if end > skip || skip == 0 {
            slices.push(IoSlice::new(&data[start.max(skip)..end]));
        }
        start = end;
    }
    slices
}

async fn vectored_honest(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        b: _b,
        stop: _stop,
    } = cx.pair().await?;
    ensure(
        a.is_write_vectored(),
        "is_write_vectored to be true, as claimed",
        "false",
    )?;
    let n = a
        .write_vectored(&[IoSlice::new(b"two"), IoSlice::new(b"buffers")])
        .await
        .expecting("a vectored write to succeed")?;
    ensure(n == 10, "10 bytes of two buffers taken", format!("{n}"))
}

async fn readbuf_discipline(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    send(&mut a, b"fresh").await?;
    let waker = CountingWaker::new();
    let mut storage = [0xaa_u8; 64];
    let mut buf = ReadBuf::new(&mut storage);
    buf.put_slice(b"kept");
    for _ in 0..2000 {
        let before = buf.filled().len();
        let poll = Pin::new(&mut b).poll_read(&mut waker.context(), &mut buf);
        if let Poll::Ready(result) = poll {
            result.expecting("a read to succeed")?;
        }
        let after = buf.filled().len();
        ensure(
            after >= before,
            format!("at least {before} bytes still filled"),
            format!("{after}"),
        )?;
        if after >= 9 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    same(b"keptfresh", buf.filled(), 0)
}

async fn read_partial(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    send(&mut a, b"few").await?;
    let mut buf = vec![0; 100_000];
    let mut have = 0;
    while have < 3 {
        let read = cx.within(
            "a read to return the 3 bytes that came",
            b.read(&mut buf[have..]),
        );
        let n = read.await?.expecting("a read to succeed")?;
        ensure(n > 0, "bytes", "the end of the stream")?;
        have += n;
    }
    same(b"few", &buf[..have], 0)
}

fn wrapped(wrap: impl Fn(Wire, u64) -> Wire) -> (Wire, Wire) {
    let (a, b) = pipe();
    (wrap(a, 1), wrap(b, 2))
}

async fn one_byte(cx: Cx) -> Result<(), Failure> {
    let (a, b) = wrapped(|wire, _| Box::new(Chop::one_byte(wire)));
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair_over(a, b).await?;
    let data = cx.rng().bytes(10_000);
    cx.step("sending one way, a byte at a time");
    tokio::try_join!(
        send_and_shutdown(&mut a, &data),
        receive_to_end(&mut b, &data)
    )
    .map(drop)
}

async fn chopped(cx: Cx) -> Result<(), Failure> {
    let seed = cx.rng().next();
    let (a, b) = wrapped(|wire, side| Box::new(Chop::new(wire, seed ^ side, 97)));
    let pair = cx.pair_over(a, b).await?;
    both_ways(&cx, pair, 200_000).await
}

async fn pending_storm(cx: Cx) -> Result<(), Failure> {
    let seed = cx.rng().next();
    let (a, b) = wrapped(|wire, side| {
        let chop = Chop::new(wire, seed ^ side, 3000);
        Box::new(Storm::new(chop, seed.wrapping_add(side)))
    });
    let pair = cx.pair_over(a, b).await?;
    both_ways(&cx, pair, 200_000).await
}
