//! One direction has ended; the other goes on, far beyond any window.

use crate::case::page;
use crate::context::{Cx, expect_end, receive_to_end, send_and_shutdown};
use crate::pair::Pair;
use crate::report::{Expecting, Failure};

use tokio::io::AsyncWriteExt;

page! { Half;
    READ_AFTER_OWN_SHUTDOWN = "half.read_after_own_shutdown", "reading goes on after our shutdown" {
        promise: "After our shutdown we still receive 5 MiB, then the peer's end.",
        source: "POSIX shutdown(2) with SHUT_WR; RFC 9293 section 3.6",
        bug: "tokio-yamux 0.3.20 reads no window updates after our end, so the answer stops at 256 KiB",
        secs: 30, needs: [HalfClose], Tasks: read_after_own_shutdown,
    }
    WRITE_AFTER_PEER_FIN = "half.write_after_peer_fin", "writing goes on after the peer's end" {
        promise: "After we have read the peer's end we still send 5 MiB.",
        source: "POSIX shutdown(2) with SHUT_WR; RFC 9293 section 3.6",
        bug: "wrappers that forward a half close as a whole one (tailscale/tailscale#21359)",
        secs: 30, needs: [HalfClose], Tasks: write_after_peer_fin,
    }
    BOTH_ORDERS = "half.both_orders", "either end may finish first" {
        promise: "Whichever end shuts down first, both streams end cleanly.",
        source: "RFC 9293 section 3.6",
        bug: "a stream that is forgotten at its first end, together with the other direction",
        secs: 20, needs: [HalfClose], Tasks: both_orders,
    }
    AT_ONCE = "half.at_once", "both ends may finish at the same time" {
        promise: "Two shutdowns that cross each other on the way are two clean ends.",
        source: "RFC 9293 section 3.6, simultaneous close",
        bug: "an end that is taken for an answer to our own",
        secs: 20, needs: [HalfClose], Tasks: at_once,
    }
}

/// More than any window that is granted without reading.
const BEYOND_ANY_WINDOW: usize = 5 << 20;

async fn read_after_own_shutdown(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    a.shutdown().await.expecting("a shutdown to succeed")?;
    cx.settle().await;
    let data = cx.rng().bytes(BEYOND_ANY_WINDOW);
    cx.step("reading after our own shutdown");
    tokio::try_join!(
        send_and_shutdown(&mut b, &data),
        receive_to_end(&mut a, &data)
    )
    .map(drop)
}

async fn write_after_peer_fin(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    b.shutdown().await.expecting("a shutdown to succeed")?;
    cx.step("waiting for the peer's end");
    expect_end(&mut a).await?;
    let data = cx.rng().bytes(BEYOND_ANY_WINDOW);
    cx.step("writing after the peer's end");
    tokio::try_join!(
        send_and_shutdown(&mut a, &data),
        receive_to_end(&mut b, &data)
    )
    .map(drop)
}

async fn both_orders(cx: Cx) -> Result<(), Failure> {
    for a_first in [true, false] {
        let Pair {
            a, b, stop: _stop, ..
        } = cx.pair().await?;
        let (mut first, mut second) = if a_first { (a, b) } else { (b, a) };
        cx.step("one end finishing");
        tokio::try_join!(
            send_and_shutdown(&mut first, b"request"),
            receive_to_end(&mut second, b"request")
        )?;
        cx.step("the other end finishing");
        tokio::try_join!(
            send_and_shutdown(&mut second, b"response"),
            receive_to_end(&mut first, b"response")
        )?;
    }
    Ok(())
}

async fn at_once(cx: Cx) -> Result<(), Failure> {
    let Pair {
        mut a,
        mut b,
        stop: _stop,
    } = cx.pair().await?;
    cx.step("both ends finishing at once");
    tokio::try_join!(
        send_and_shutdown(&mut a, b"there"),
        send_and_shutdown(&mut b, b"back")
    )?;
    tokio::try_join!(
        receive_to_end(&mut a, b"back"),
        receive_to_end(&mut b, b"there")
    )
    .map(drop)
}
