//! Hostile and odd bytes on the wire of a multiplexer.

mod script;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::mux::{exchange, stream};
use crate::alloc;
use crate::case::page;
use crate::context::{Cx, ensure, receive, send};
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
        secs: 60, needs: [Mux, Layered], Virtual: bytes_never_panic,
    }
    ALLOC_BOUND = "fuzz.alloc_bound", "garbage does not fill the memory" {
        promise: "Sessions that are fed 64 KiB of garbage, of every kind, hold less than 4 MiB each.",
        source: "CWE-770: allocation without limits",
        bug: "a buffer of the length that a frame's header claims",
        secs: 60, needs: [Mux, Layered, Allocator], Virtual: alloc_bound,
    }
    OUTPUT_AMPLIFICATION = "fuzz.output_amplification", "garbage is not answered with more" {
        promise: "What a session sends in answer to garbage is no more than it received, and a KiB.",
        source: "CWE-406: insufficient control of message volume",
        bug: "a reset for every unknown frame, without a limit",
        secs: 60, needs: [Mux, Layered], Virtual: output_amplification,
    }
    SPLIT_INVARIANCE = "fuzz.split_invariance", "segments do not matter" {
        promise: "However the wire cuts frames into pieces, down to single bytes, streams carry the same bytes.",
        source: "RFC 9293: TCP is a stream of bytes",
        bug: "a header that is expected in one read",
        secs: 60, needs: [Mux, Layered], Tasks: split_invariance,
    }
    DIFF_REFERENCE = "diff.reference", "random scripts end as on the reference" {
        promise: "Random writes, flushes, pauses, ends and drops on both ends give the bytes and the endings that the reference pair gives.",
        source: "W. M. McKeeman, \"Differential testing for software\", 1998",
        bug: "defects that need two sizes, or an end and a write, in an order that nobody thought of",
        secs: 60, needs: [HalfClose], Tasks: script::same_as_reference,
    }
}

/// One attempt of a hostile peer.
#[derive(Clone, Copy, Debug)]
enum Garbage {
    /// Headers of yamux for streams that do not exist.
    Strangers,
    /// Headers of yamux whose fields are drawn from few values, and random bytes among them.
    Frames,
    /// One header of yamux with a length at the edge of something, and noise behind it.
    Edge { kind: u8, flags: u8, length: u32 },
    /// Random bytes.
    Noise,
    /// Bytes from 0 to 3, as in many headers.
    Small,
}

impl Garbage {
    /// Every header at an edge, and the random kinds several times each.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for _ in 0..8 {
            all.extend([Self::Noise, Self::Small, Self::Frames, Self::Strangers]);
        }
        for length in [0, 1, 262_145, 0x7fff_ffff, u32::MAX] {
            for kind in 0..5 {
                for flags in [0, 1, 2, 4, 8] {
                    let edge = Self::Edge {
                        kind,
                        flags,
                        length,
                    };
                    all.push(edge);
                }
            }
        }
        all
    }

    fn bytes(self, rng: &mut Rng, len: usize) -> Vec<u8> {
        let mut bytes = rng.bytes(len);
        let each = |bytes: &mut [u8], change: fn(usize, u8) -> u8| {
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte = change(i % 12, *byte);
            }
        };
        match self {
            Self::Noise => {}
            Self::Small => each(&mut bytes, |_, byte| byte & 3),
            // Version 0, a type, flags, a stream id, a length.
            Self::Frames => each(&mut bytes, |i, byte| match i {
                1 => byte & 3,
                3 => byte & 15,
                7 => byte & 7,
                11 => byte & 31,
                _ => 0,
            }),
            Self::Strangers => each(&mut bytes, |i, byte| if i == 7 { byte | 1 } else { 0 }),
            Self::Edge {
                kind,
                flags,
                length,
            } => {
                let stream = u8::from(kind < 2);
                bytes[..8].copy_from_slice(&[0, kind, 0, flags, 0, 0, 0, stream]);
                bytes[8..12].copy_from_slice(&length.to_be_bytes());
            }
        }
        bytes
    }
}

/// Feeds garbage to one side and waits for its accept to end. Returns the bytes in and out.
async fn feed(cx: &Cx, rng: &mut Rng, garbage: Garbage, side: Side) -> Result<(u64, u64), Failure> {
    let (wire, mut peer) = pipe();
    let (wire, log) = Tap::new(wire);
    let bytes = garbage.bytes(rng, 64 * 1024);
    cx.step(format!("feeding garbage to the {side:?}: {garbage:?}"));
    let hostile = async {
        let mut sink = vec![0; 4096];
        let (mut reader, mut writer) = tokio::io::split(&mut peer);
        let write = async {
            // The session may hang up in the middle.
            let _ = writer.write_all(&bytes).await;
            // Its answers are read before it sees the end.
            cx.settle().await;
            let _ = writer.shutdown().await;
        };
        let read = async { while let Ok(1..) = reader.read(&mut sink).await {} };
        tokio::join!(write, read);
    };
    let session = async {
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

const SIDES: [Side; 2] = [Side::Client, Side::Server];

async fn bytes_never_panic(cx: Cx) -> Result<(), Failure> {
    let mut rng = cx.rng();
    for garbage in Garbage::all() {
        for side in SIDES {
            feed(&cx, &mut rng, garbage, side).await?;
        }
    }
    Ok(())
}

async fn alloc_bound(cx: Cx) -> Result<(), Failure> {
    let mut rng = cx.rng();
    feed(&cx, &mut rng, Garbage::Noise, Side::Client).await?;
    for garbage in Garbage::all() {
        for side in SIDES {
            let before = alloc::held();
            alloc::mark();
            feed(&cx, &mut rng, garbage, side).await?;
            let more = alloc::peak() - before;
            ensure(
                more < 4 << 20,
                "less than 4 MiB held while fed garbage",
                format!("{more} bytes"),
            )
            .map_err(|failure| failure.at(format!("by the {side:?}, fed with {garbage:?}")))?;
        }
    }
    Ok(())
}

async fn output_amplification(cx: Cx) -> Result<(), Failure> {
    let mut rng = cx.rng();
    for garbage in Garbage::all() {
        for side in SIDES {
            let (read, written) = feed(&cx, &mut rng, garbage, side).await?;
            ensure(
                written <= read + 1024,
                format!("at most {} bytes in answer to {read}", read + 1024),
                format!("{written}"),
            )
            .map_err(|failure| failure.at(format!("by the {side:?}, fed with {garbage:?}")))?;
        }
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
            let data = cx.rng().bytes(5000);
            let talk = async {
                exchange(a, b).await?;
                tokio::try_join!(send(a, &data), receive(b, &data))?;
                tokio::try_join!(send(b, &data), receive(a, &data)).map(drop)
            };
            talk.await
                .map_err(|failure| failure.at(format!("over pieces of up to {max} bytes")))?;
        }
    }
    Ok(())
}
