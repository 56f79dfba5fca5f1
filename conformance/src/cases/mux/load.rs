use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf, split};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{accept, open, stream};
use crate::context::{Cx, ensure, expect_end, receive, receive_to_end, send, send_and_shutdown};
use crate::fault::Rate;
use crate::mux::MuxPair;
use crate::pair::{End, Wire, pipe};
use crate::report::Failure;

/// A session over a line of so many bytes per second each way.
async fn slow_session(cx: &Cx, bytes_per_second: usize) -> Result<MuxPair, Failure> {
    let (a, b) = pipe();
    let slow = |wire| -> Wire { Box::new(Rate::new(wire, bytes_per_second)) };
    cx.session_over(slow(a), slow(b)).await
}

/// Who writes on a stream that the client opened.
#[derive(Clone, Copy)]
enum Way {
    Back,
    There,
}

/// Streams that write without end, in pieces of these sizes, to readers that count.
async fn bulk(
    session: &MuxPair,
    tasks: &mut JoinSet<Result<(), Failure>>,
    sizes: &[usize],
    way: Way,
) -> Result<Vec<Arc<AtomicUsize>>, Failure> {
    let mut counts = Vec::new();
    for &size in sizes {
        let (a, b) = stream(session).await?;
        let (a, mut b) = match way {
            Way::There => (a, b),
            Way::Back => (b, a),
        };
        let count = Arc::new(AtomicUsize::new(0));
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
                count.fetch_add(n, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    Ok(counts)
}

pub(super) async fn fair(cx: Cx) -> Result<(), Failure> {
    let session = slow_session(&cx, 2_000_000).await?;
    let mut tasks = JoinSet::new();
    let counts = bulk(
        &session,
        &mut tasks,
        &[65_536, 65_536, 65_536, 1000],
        Way::There,
    )
    .await?;
    let totals = || -> Vec<f64> {
        let load = |count: &Arc<AtomicUsize>| count.load(Ordering::Relaxed);
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

pub(super) async fn latency_under_bulk(cx: Cx) -> Result<(), Failure> {
    let session = slow_session(&cx, 10_000_000).await?;
    let (mut a, mut b) = stream(&session).await?;
    let mut tasks = JoinSet::new();
    bulk(&session, &mut tasks, &[65_536; 4], Way::There).await?;
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
        median <= Duration::from_millis(20),
        "a median of 20 ms or less",
        format!("{median:?}"),
    )
}

pub(super) async fn control_not_blocked(cx: Cx) -> Result<(), Failure> {
    let session = slow_session(&cx, 10_000_000).await?;
    let mut tasks = JoinSet::new();
    bulk(&session, &mut tasks, &[65_536; 2], Way::There).await?;
    bulk(&session, &mut tasks, &[65_536; 2], Way::Back).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut times = Vec::new();
    for i in 0..11 {
        cx.step(format!("opening and ending stream {i} under load"));
        let start = Instant::now();
        let opened = async {
            let mut end = open(&*session.client).await?;
            send_and_shutdown(&mut end, b"x").await?;
            expect_end(&mut end).await
        };
        let answered = async {
            let mut end = accept(&*session.server).await?;
            receive_to_end(&mut end, b"x").await?;
            send_and_shutdown(&mut end, b"").await?;
            Ok(end)
        };
        tokio::try_join!(opened, answered)?;
        times.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    ensure(
        median <= Duration::from_millis(100),
        "a median of 100 ms or less",
        format!("{median:?}"),
    )
}

pub(super) async fn coop(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    let (mut a, b) = stream(&session).await?;
    send(&mut a, &vec![7; READS]).await?;
    cx.settle().await;
    cx.step("reading byte by byte in one poll");
    let mut reads = JoinSet::new();
    // In a task of its own: its budget is fresh.
    reads.spawn(ready_reads(b));
    let Some(Ok(reads)) = reads.join_next().await else {
        return Err(Failure::new("a number of reads", "a panic"));
    };
    ensure(reads > 0, "data to read at the first poll", "none")?;
    ensure(
        reads <= 1000,
        "a read to yield after 1000 ready ones at most",
        format!("{reads} ready reads in one poll"),
    )
}

/// How many reads of a byte are ready in one poll.
async fn ready_reads(mut end: End) -> usize {
    std::future::poll_fn(move |cx| {
        let mut reads = 0;
        while reads < READS {
            let mut byte = [0];
            let mut buf = ReadBuf::new(&mut byte);
            if Pin::new(&mut end).poll_read(cx, &mut buf).is_pending() {
                break;
            }
            reads += 1;
        }
        Poll::Ready(reads)
    })
    .await
}

/// The bytes that wait for [`coop`]: many times tokio's budget of 128 operations.
const READS: usize = 20_000;
