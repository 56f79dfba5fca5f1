//! The end of a stream: after all data, and for good.

use std::task::Poll;

use tokio::io::AsyncWriteExt;

use crate::case::page;
use crate::context::{Cx, expect_end, receive, receive_to_end, send_and_shutdown};
use crate::pair::Pair;
use crate::report::{Expecting, Failure, describe};
use crate::step::{CountingWaker, poll_read};

page! { Eof;
    AFTER_ALL_DATA = "eof.after_all_data", "the end comes after the last byte" {
        promise: "What was written before a shutdown is read completely, then the end.",
        source: "tokio's AsyncWrite::poll_shutdown; nettest BasicIO",
        bug: "tokio-yamux clears pending writes when its session shuts down",
        secs: 20, needs: [], Tasks: after_all_data,
    }
    STICKY = "eof.sticky", "the end stays" {
        promise: "Once a read has seen the end, every later read sees it too.",
        source: "tokio's AsyncRead; POSIX read(2)",
        bug: "a read after the end that hangs or panics",
        secs: 10, needs: [], Steps: sticky,
    }
    EMPTY = "eof.empty", "a stream of no bytes" {
        promise: "A shutdown without a write is read as the end.",
        source: "tokio's AsyncWrite::poll_shutdown",
        bug: "a stream that is announced by its first byte only, and never comes to exist",
        secs: 10, needs: [], Tasks: empty,
    }
}

async fn after_all_data(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    let data = cx.rng().bytes(1_000_003);
    cx.step("sending to the end");
    tokio::try_join!(
        send_and_shutdown(&mut a, &data),
        receive_to_end(&mut b, &data)
    )
    .map(drop)
}

async fn sticky(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    tokio::try_join!(send_and_shutdown(&mut a, b"last"), receive(&mut b, b"last"))?;
    cx.step("waiting for the end");
    expect_end(&mut b).await?;
    let waker = CountingWaker::new();
    for poll in 1..=10 {
        let mut byte = [0];
        let seen = match poll_read(&mut b, &mut waker.context(), &mut byte) {
            Poll::Ready(Ok(0)) => continue,
            Poll::Ready(Ok(_)) => "a byte".to_owned(),
            Poll::Ready(Err(error)) => describe(&error),
            Poll::Pending => "a pending read".to_owned(),
        };
        let place = format!("at poll {poll} after the end");
        return Err(Failure::new("the end again", seen).at(place));
    }
    Ok(())
}

async fn empty(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    a.shutdown().await.expecting("a shutdown to succeed")?;
    cx.step("waiting for the end of an empty stream");
    expect_end(&mut b).await
}
