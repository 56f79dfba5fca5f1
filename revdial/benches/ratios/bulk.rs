//! Bytes per second of processor time, against as many bare sockets.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::measure::{cpu, median};
use crate::muxes::{Mux, Revdial, TokioYamux, Transport, Writers, Yamux, connect, tcp_pair};
use crate::run;

/// The share of bare TCP that each multiplexer reaches with `count` streams: the median over rounds that alternate.
pub(crate) fn against_tcp(count: usize) -> [f64; 3] {
    let mut ratios = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let raw = run(sockets(count)).as_secs_f64();
        ratios[0].push(raw / run(streams::<Revdial>(count)).as_secs_f64());
        ratios[1].push(raw / run(streams::<Yamux>(count)).as_secs_f64());
        ratios[2].push(raw / run(streams::<TokioYamux>(count)).as_secs_f64());
    }
    ratios.map(|mut ratios| median(&mut ratios))
}

pub(crate) async fn sockets(count: usize) -> Duration {
    let mut pairs = Vec::new();
    for _ in 0..count {
        pairs.push(tcp_pair().await);
    }
    transfer(pairs, Writers::Write).await
}

pub(crate) async fn streams<M: Mux>(count: usize) -> Duration {
    let (ours, theirs) = tcp_pair().await;
    let (opener, mut acceptor) = M::start(ours, theirs);
    let pairs = connect::<M>(&opener, &mut acceptor, count).await;
    transfer(pairs, M::WRITERS).await
}

/// Moves [`TOTAL`] bytes over all pairs together; the processor time that took.
async fn transfer<S: Transport>(pairs: Vec<(S, S)>, writers: Writers) -> Duration {
    let share = TOTAL / pairs.len();
    let mut tasks = JoinSet::new();
    let began = cpu();
    for (ours, theirs) in pairs {
        tasks.spawn(send(ours, share, writers));
        tasks.spawn(receive(theirs, share));
    }
    while tasks.join_next().await.is_some() {}
    cpu() - began
}

async fn send<S: Transport>(stream: S, share: usize, writers: Writers) {
    let data = vec![7; PIECE];
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = async {
        for _ in 0..share / PIECE {
            write.write_all(&data).await.unwrap();
        }
        write.flush().await.unwrap();
    };
    match writers {
        Writers::Write => sending.await,
        Writers::ReadToo => {
            tokio::select! {
                () = sending => {}
                _ = read.read_u8() => unreachable!("the receiver sends nothing before the end"),
            }
        }
    }
    // The receiver tells when it has everything.
    read.read_u8().await.unwrap();
}

async fn receive<S: Transport>(mut stream: S, share: usize) {
    let mut buffer = vec![0; PIECE];
    let mut left = share / PIECE * PIECE;
    while left > 0 {
        left -= stream.read(&mut buffer).await.unwrap();
    }
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    // Held until the sender has read it.
    let _ = stream.read(&mut buffer).await;
}

const ROUNDS: usize = 7;
/// Bytes of one round.
const TOTAL: usize = 384 * 1024 * 1024;
/// Bytes of one write, and of one read at most.
const PIECE: usize = 64 * 1024;
