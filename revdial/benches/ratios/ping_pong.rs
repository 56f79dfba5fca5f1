//! Processor time of a short question and its answer, against a bare socket.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::measure::{cpu, median};
use crate::muxes::{Mux, Revdial, TokioYamux, Transport, Yamux, connect, tcp_pair};
use crate::run;

/// How many times the processor time of bare TCP each multiplexer takes: the median over rounds that alternate.
pub(crate) fn against_tcp() -> [f64; 3] {
    let mut ratios = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let raw = run(socket()).as_secs_f64();
        ratios[0].push(run(stream::<Revdial>()).as_secs_f64() / raw);
        ratios[1].push(run(stream::<Yamux>()).as_secs_f64() / raw);
        ratios[2].push(run(stream::<TokioYamux>()).as_secs_f64() / raw);
    }
    ratios.map(|mut ratios| median(&mut ratios))
}

pub(crate) async fn socket() -> Duration {
    let (ours, theirs) = tcp_pair().await;
    exchange(ours, theirs).await
}

pub(crate) async fn stream<M: Mux>() -> Duration {
    let (ours, theirs) = tcp_pair().await;
    let (opener, mut acceptor) = M::start(ours, theirs);
    let (ours, theirs) = connect::<M>(&opener, &mut acceptor, 1).await.remove(0);
    exchange(ours, theirs).await
}

async fn exchange<S: Transport>(mut ours: S, mut theirs: S) -> Duration {
    let answering = tokio::spawn(async move {
        let mut message = [0; MESSAGE];
        for _ in 0..EXCHANGES {
            theirs.read_exact(&mut message).await.unwrap();
            theirs.write_all(&message).await.unwrap();
        }
        theirs.flush().await.unwrap();
        theirs
    });
    let asking = tokio::spawn(async move {
        let mut message = [7; MESSAGE];
        for _ in 0..EXCHANGES {
            ours.write_all(&message).await.unwrap();
            ours.read_exact(&mut message).await.unwrap();
        }
        ours
    });
    let began = cpu();
    let _ends = (asking.await.unwrap(), answering.await.unwrap());
    cpu() - began
}

const ROUNDS: usize = 7;
/// Questions of one round.
const EXCHANGES: usize = 20_000;
/// Bytes of a question and of its answer.
const MESSAGE: usize = 64;
