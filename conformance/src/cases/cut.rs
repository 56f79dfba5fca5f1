//! The transport beneath dies without a word.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::case::page;
use crate::context::{Cx, ensure, expect_broken, receive, send};
use crate::fault::{Cut, Death};
use crate::pair::{End, Pair, Wire, pipe};
use crate::report::Failure;

page! { Cut;
    TRANSPORT_IS_ERROR = "cut.transport_is_error", "a cut is an error" {
        promise: "When the transport dies, a reader gets what had come and then an error, never a clean end.",
        source: "RFC 8446 section 6.1: a truncated stream must not look whole",
        bug: "yamux 0.14.1 and tokio-yamux 0.3.20 show a cut as a clean end after part of the data",
        secs: 10, needs: [CutVisible, Layered], Tasks: transport_is_error,
    }
    WAKES_PARKED = "cut.wakes_parked", "a cut wakes who waits" {
        promise: "When the transport dies, pending reads and pending writes of both ends fail.",
        source: "Rust's Future contract: who can make progress is woken",
        bug: "a stream read that stays parked after its session is gone (libp2p/rust-yamux#216)",
        secs: 10, needs: [Layered], Tasks: wakes_parked,
    }
    EVERY_BYTE = "cut.every_byte", "a cut at every byte" {
        promise: "Wherever a short exchange is cut, the reader sees a prefix and an error, or all of it and the end.",
        source: "RFC 8446 section 6.1",
        bug: "truncation that goes unnoticed only where the cut falls between two frames",
        secs: 60, needs: [CutVisible, Layered], Tasks: every_byte,
    }
}

fn cuttable(bytes: Option<u64>, death: Death) -> (Wire, Wire, crate::fault::CutHandle) {
    let (a, b) = pipe();
    let (a, b, handle) = Cut::pair(a, b, bytes, death);
    (Box::new(a), Box::new(b), handle)
}

async fn transport_is_error(cx: Cx) -> Result<(), Failure> {
    for death in [Death::EndOfFile, Death::Error] {
        let (a, b, handle) = cuttable(None, death);
        let Pair {
            mut a,
            mut b,
            stop: _stop,
        } = cx.pair_over(a, b).await?;
        send(&mut a, b"part").await?;
        receive(&mut b, b"part").await?;
        handle.cut();
        cx.step(format!("reading after a cut ({death:?})"));
        expect_broken(&mut b, b"").await?;
    }
    Ok(())
}

async fn wakes_parked(cx: Cx) -> Result<(), Failure> {
    for parked in [Parked::Reads, Parked::Writes] {
        let (a, b, handle) = cuttable(None, Death::Error);
        let Pair { a, b, stop: _stop } = cx.pair_over(a, b).await?;
        let mut tasks = tokio::task::JoinSet::new();
        for end in [a, b] {
            tasks.spawn(parked.until_error(end));
        }
        // Nobody writes, or nobody reads: everything on the way is empty, or full.
        cx.settle().await;
        handle.cut();
        for ended in 0..2 {
            cx.step(format!(
                "cutting pending {parked:?}, of which {ended} of 2 ended"
            ));
            let outcome = tasks.join_next().await;
            ensure(
                matches!(outcome, Some(Ok(Err(_)))),
                format!("pending {parked:?} to fail"),
                format!("{outcome:?}"),
            )?;
        }
    }
    Ok(())
}

/// What is pending at both ends when the transport dies.
#[derive(Clone, Copy, Debug)]
enum Parked {
    Reads,
    Writes,
}

impl Parked {
    async fn until_error(self, mut end: End) -> std::io::Result<()> {
        let flood = vec![0; 64 * 1024];
        loop {
            match self {
                Self::Reads => return end.read_exact(&mut [0]).await.map(drop),
                Self::Writes => end.write_all(&flood).await?,
            }
        }
    }
}

async fn every_byte(cx: Cx) -> Result<(), Failure> {
    let whole = cx.rng().bytes(40);
    let mut cut_at = 0;
    loop {
        let death = if cut_at % 2 == 0 {
            Death::EndOfFile
        } else {
            Death::Error
        };
        match cut_once(&cx, &whole, cut_at, death).await? {
            Exchange::Whole => return Ok(()),
            Exchange::Broken => cut_at += 1,
        }
        ensure(
            cut_at < MOST_BYTES,
            format!("an exchange of 40 bytes to take less than {MOST_BYTES} on the wire"),
            "more",
        )?;
    }
}

enum Exchange {
    Broken,
    Whole,
}

/// Sends `whole` over a pipe that dies after `cut_at` bytes.
async fn cut_once(cx: &Cx, whole: &[u8], cut_at: u64, death: Death) -> Result<Exchange, Failure> {
    let (a, b, _) = cuttable(Some(cut_at), death);
    // A cut within the handshake may well fail it, but must not hang it.
    let made = cx.within("a handshake that is cut to end", cx.pair_over(a, b));
    let made = made.await.map_err(|failure| {
        failure.at(format!(
            "with a cut at byte {cut_at} of the wire ({death:?})"
        ))
    })?;
    let Ok(pair) = made else {
        return Ok(Exchange::Broken);
    };
    let Pair { mut a, mut b, stop } = pair;
    cx.step(format!("exchanging 40 bytes with a cut at byte {cut_at}"));
    let sender = async {
        for piece in whole.chunks(16) {
            if a.write_all(piece).await.is_err() || a.flush().await.is_err() {
                return a;
            }
        }
        let _ = a.shutdown().await;
        a
    };
    let reader = async {
        let mut got = Vec::new();
        let outcome = b.read_to_end(&mut got).await;
        (got, outcome)
    };
    let (a, (got, outcome)) = tokio::join!(sender, reader);
    drop((a, stop));
    let place = format!("with a cut at byte {cut_at} of the wire ({death:?})");
    ensure(
        whole.starts_with(&got),
        "a prefix of what was sent",
        "other bytes",
    )
    .map_err(|failure| failure.at(place.clone()))?;
    match outcome {
        Err(_) => Ok(Exchange::Broken),
        Ok(_) if got == whole => Ok(Exchange::Whole),
        Ok(_) => Err(Failure::new(
            "an error after a part of the data",
            format!("a clean end after {} of {} bytes", got.len(), whole.len()),
        )
        .at(place)),
    }
}

/// Beyond it the sweep gives up: a handshake with certificates and 40 bytes take less.
const MOST_BYTES: u64 = 20_000;
