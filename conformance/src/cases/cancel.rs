//! Futures that are dropped: no byte is lost, none is sent that was not reported.

use std::task::Poll;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::case::page;
use crate::context::{Cx, expect_end, same};
use crate::pair::{End, Pair};
use crate::report::{Expecting, Failure, describe};
use crate::step::{CountingWaker, Step, fill, poll_read, poll_write};

page! { Cancel;
    READ = "cancel.read", "a dropped read loses nothing" {
        promise: "However often a pending read is dropped and begun anew with another buffer, every byte arrives once.",
        source: "tokio's AsyncReadExt::read: cancel safe",
        bug: "bytes read into a future that is then dropped, by an adapter that waits twice",
        secs: 20, needs: [], Steps: read,
    }
    WRITE = "cancel.write", "a dropped write sends nothing" {
        promise: "A write that was pending and is dropped has sent nothing: the peer reads exactly the bytes reported.",
        source: "tokio's AsyncWriteExt::write: cancel safe",
        bug: "a cancelled write that is sent all the same, and then again by the caller",
        secs: 20, needs: [], Steps: write,
    }
    SHUTDOWN = "cancel.shutdown", "a dropped shutdown can be repeated" {
        promise: "A shutdown that was pending and is dropped can be begun again; the peer reads everything and one end.",
        source: "tokio's AsyncWrite::poll_shutdown: called until it is ready",
        bug: "a shutdown that forgets on its second call that bytes are still queued",
        secs: 20, needs: [], Steps: shutdown,
    }
}

async fn read(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let mut rng = cx.rng();
    let data = rng.bytes(30_000);
    let (mut sent, mut got) = (0, Vec::new());
    for round in 0..3000 {
        cx.step(format!("reading in round {round}"));
        let mut buf = vec![0; rng.size(300)];
        // Polled once; where it is pending, the future and its buffer are dropped.
        let poll = Step::new(b.read(&mut buf)).poll();
        match poll {
            Poll::Ready(Ok(0)) => return Err(Failure::new("more bytes", "the end")),
            Poll::Ready(Ok(n)) => got.extend_from_slice(&buf[..n]),
            Poll::Ready(Err(error)) => {
                return Err(Failure::new("a read to succeed", describe(&error)));
            }
            Poll::Pending if got.len() == data.len() => break,
            Poll::Pending if sent == data.len() => cx.settle().await,
            Poll::Pending => {
                let end = data.len().min(sent + rng.size(200));
                let n = a.write(&data[sent..end]).await;
                sent += n.expecting("a write to succeed")?;
                a.flush().await.expecting("a flush to succeed")?;
                if rng.one_in(3) {
                    cx.settle().await;
                }
            }
        }
    }
    same(&data, &got, 0)
}

async fn write(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let mut rng = cx.rng();
    let waker = CountingWaker::new();
    let (mut accepted, mut got) = (Vec::new(), Vec::new());
    let (mut cancelled, mut round) = (0, 0);
    while cancelled < 60 && round < 60_000 {
        round += 1;
        let chunk = rng.bytes(4 * FILL);
        match poll_write(&mut a, &mut waker.context(), &chunk) {
            Poll::Ready(Ok(n)) => accepted.extend_from_slice(&chunk[..n]),
            Poll::Ready(Err(error)) => {
                return Err(Failure::new("a write to succeed", describe(&error)));
            }
            Poll::Pending => {
                cancelled += 1;
                cx.settle().await;
                if rng.one_in(2) {
                    take_some(&mut b, &mut got, rng.size(FILL))?;
                }
                cx.settle().await;
            }
        }
    }
    cx.step("reading what was reported as written");
    let finish = async {
        a.shutdown().await.expecting("a shutdown to succeed")?;
        Ok(a)
    };
    let rest = async {
        b.read_to_end(&mut got)
            .await
            .expecting("reads to succeed, and the end")
    };
    tokio::try_join!(finish, rest)?;
    same(&accepted, &got, 0)
        .map_err(|failure| failure.at(format!("after {cancelled} cancelled writes")))
}

/// Reads once, if there is something.
fn take_some(io: &mut End, got: &mut Vec<u8>, len: usize) -> Result<(), Failure> {
    let mut buf = vec![0; len];
    let waker = CountingWaker::new();
    if let Poll::Ready(read) = poll_read(io, &mut waker.context(), &mut buf) {
        let n = read.expecting("a read to succeed")?;
        got.extend_from_slice(&buf[..n]);
    }
    Ok(())
}

async fn shutdown(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let waker = CountingWaker::new();
    let taken = fill(&cx, &mut a, &waker).await?;
    for _ in 0..3 {
        // Ready or pending: either is right, and the future is gone.
        let _ = Step::new(a.shutdown()).poll();
        cx.settle().await;
    }
    cx.step("finishing a shutdown that was dropped");
    let finish = async {
        a.shutdown().await.expecting("a shutdown to succeed")?;
        Ok(a)
    };
    let drain = async {
        let mut left = taken;
        let mut buf = vec![1; 64 * 1024];
        while left > 0 {
            let n = b.read(&mut buf).await.expecting("a read to succeed")?;
            if n == 0 || n > left {
                let seen = format!("{n} bytes with {left} to come");
                return Err(Failure::new("the bytes that were taken", seen));
            }
            same(&vec![0; n], &buf[..n], taken - left)?;
            left -= n;
        }
        expect_end(&mut b).await
    };
    tokio::try_join!(finish, drain).map(drop)
}

/// Pieces that no connection takes many of while nobody reads.
const FILL: usize = 16 * 1024;
