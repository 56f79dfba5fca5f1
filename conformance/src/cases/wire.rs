//! Hostile and odd bytes on the wire of a multiplexer.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::mux::{exchange, stream};
use crate::alloc;
use crate::case::page;
use crate::context::{Cx, ensure};
use crate::fault::{Chop, Tap};
use crate::mux::Side;
use crate::pair::{Wire, pipe};
use crate::report::Failure;
use crate::rng::Rng;

page! { Wire;
    BYTES_NEVER_PANIC = "fuzz.bytes_never_panic", "garbage ends the session" {
        promise: "Whatever bytes come, and whenever they end, an accept that waits returns; it neither hangs nor panics.",
        source: "RFC 9113 section 5.4.1: a connection error ends the connection",
        bug: "a panic from one oversized frame (GHSA-vxx9-2994-q338)",
        secs: 60, needs: [Mux, Layered], Tasks: bytes_never_panic,
    }
    ALLOC_BOUND = "fuzz.alloc_bound", "garbage does not fill the memory" {
        promise: "A hundred sessions that are fed 64 KiB of garbage each hold less than 4 MiB at any time, one after the other.",
        source: "CWE-770: allocation without limits",
        bug: "a buffer of the length that a frame's header claims",
        secs: 60, needs: [Mux, Layered, Allocator], Virtual: alloc_bound,
    }
    OUTPUT_AMPLIFICATION = "fuzz.output_amplification", "garbage is not answered with more" {
        promise: "What a session sends in answer to garbage is no more than it received, and a KiB.",
        source: "CWE-406: insufficient control of message volume",
        bug: "a reset for every unknown frame, without a limit",
        secs: 60, needs: [Mux, Layered], Tasks: output_amplification,
    }
    SPLIT_INVARIANCE = "fuzz.split_invariance", "segments do not matter" {
        promise: "However the wire cuts frames into pieces, down to single bytes, streams carry the same bytes.",
        source: "RFC 9293: TCP is a stream of bytes",
        bug: "a header that is expected in one read",
        secs: 60, needs: [Mux, Layered], Tasks: split_invariance,
    }
}

/// Garbage of three kinds: noise, small numbers as in headers, and one frame kind with random flags.
fn garbage(rng: &mut Rng, kind: u64, len: usize) -> Vec<u8> {
    let mut bytes = rng.bytes(len);
    match kind % 3 {
        0 => {}
        1 => bytes.iter_mut().for_each(|byte| *byte &= 3),
        _ => {
            for (i, byte) in bytes.iter_mut().enumerate() {
                // Twelve-byte headers of yamux: version 0, a type, flags, a stream id, a length.
                *byte = match i % 12 {
                    1 => *byte & 3,
                    3 => *byte & 15,
                    7 => *byte & 7,
                    11 => *byte & 31,
                    _ => 0,
                };
            }
        }
    }
    bytes
}

/// Feeds garbage to one side and waits for its accept to end. Returns the bytes in and out.
async fn feed(cx: &Cx, rng: &mut Rng, kind: u64) -> Result<(u64, u64), Failure> {
    let (wire, mut peer) = pipe();
    let (wire, log) = Tap::new(wire);
    let bytes = garbage(rng, kind, 64 * 1024);
    cx.step(format!(
        "feeding garbage of kind {} (seed {kind})",
        kind % 3
    ));
    let hostile = async {
        let mut sink = vec![0; 4096];
        let (mut reader, mut writer) = tokio::io::split(&mut peer);
        let write = async {
            // The session may hang up in the middle.
            let _ = writer.write_all(&bytes).await;
            let _ = writer.shutdown().await;
        };
        let read = async { while let Ok(1..) = reader.read(&mut sink).await {} };
        tokio::join!(write, read);
    };
    let session = async {
        let side = if kind % 2 == 0 {
            Side::Client
        } else {
            Side::Server
        };
        // A session may refuse garbage in its handshake.
        if let Ok(mux) = cx.side(Box::new(wire) as Wire, side).await {
            while let Ok(Some(stream)) = mux.accept().await {
                drop(stream);
            }
        }
    };
    tokio::join!(hostile, session);
    Ok((log.read(), log.written()))
}

async fn bytes_never_panic(cx: Cx) -> Result<(), Failure> {
    let mut rng = cx.rng();
    for kind in 0..30 {
        feed(&cx, &mut rng, kind).await?;
    }
    Ok(())
}

async fn alloc_bound(cx: Cx) -> Result<(), Failure> {
    let mut rng = cx.rng();
    feed(&cx, &mut rng, 0).await?;
    for kind in 0..100 {
        let before = alloc::held();
        alloc::mark();
        feed(&cx, &mut rng, kind).await?;
        let more = alloc::peak() - before;
        ensure(
            more < 4 << 20,
            "less than 4 MiB held while fed garbage",
            format!("{more} bytes"),
        )?;
    }
    Ok(())
}

async fn output_amplification(cx: Cx) -> Result<(), Failure> {
    let mut rng = cx.rng();
    for kind in 0..30 {
        let (read, written) = feed(&cx, &mut rng, kind).await?;
        ensure(
            written <= read + 1024,
            format!("at most {} bytes in answer to {read}", read + 1024),
            format!("{written}"),
        )?;
    }
    Ok(())
}

async fn split_invariance(cx: Cx) -> Result<(), Failure> {
    for max in [1, 5, 11, 13, 1000] {
        cx.step(format!("talking over pieces of up to {max} bytes"));
        let (a, b) = pipe();
        let seed = cx.rng().next();
        let chop = |wire| -> Wire { Box::new(Chop::new(wire, seed, max)) };
        let session = cx.session_over(chop(a), chop(b)).await?;
        let mut streams = Vec::new();
        for _ in 0..5 {
            streams.push(stream(&session).await?);
        }
        for (a, b) in &mut streams {
            exchange(a, b)
                .await
                .map_err(|failure| failure.at(format!("over pieces of up to {max} bytes")))?;
        }
    }
    Ok(())
}
