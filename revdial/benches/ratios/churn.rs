//! Short streams: open, a byte there and back, an orderly end on both sides; how many per second of processor time.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::measure::{cpu, median};
use crate::muxes::{Mux, tcp_pair};
use crate::report::Figures;
use crate::run;

pub(crate) fn measure<M: Mux>(figures: &mut Figures) {
    for (in_flight, key) in [(1, "streams_per_s_sequential"), (64, "streams_per_s_64")] {
        let mut rates: Vec<f64> = (0..ROUNDS).map(|_| run(rate::<M>(in_flight))).collect();
        figures.add(key, median(&mut rates));
    }
}

pub(crate) async fn rate<M: Mux>(in_flight: usize) -> f64 {
    let (ours, theirs) = tcp_pair().await;
    let (opener, mut acceptor) = M::start(ours, theirs);
    let server = tokio::spawn(async move {
        let mut tasks = JoinSet::new();
        while let Some(stream) = M::accept(&mut acceptor).await {
            tasks.spawn(answer(stream));
            while tasks.try_join_next().is_some() {}
        }
    });
    let mut tasks = JoinSet::new();
    let began = cpu();
    for _ in 0..in_flight {
        let opener = opener.clone();
        tasks.spawn(async move {
            for _ in 0..STREAMS / in_flight {
                ask(M::open(&opener).await).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let took = cpu() - began;
    server.abort();
    STREAMS as f64 / took.as_secs_f64()
}

async fn ask(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    stream.write_all(b"x").await.unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut answer).await.unwrap(), 0);
}

async fn answer(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    let mut question = [0];
    stream.read_exact(&mut question).await.unwrap();
    stream.write_all(&question).await.unwrap();
    assert_eq!(stream.read(&mut question).await.unwrap(), 0);
    stream.shutdown().await.unwrap();
}

const ROUNDS: usize = 5;
/// Streams of one round.
const STREAMS: usize = 16_000;
