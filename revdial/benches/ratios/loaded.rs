//! A short question beside eight bulk transfers over a slow pipe, and how fairly those share it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::measure::percentile;
use crate::muxes::{Mux, Transport, Writers, connect};
use crate::pipe::{Pipe, Road, TICK};
use crate::report::Figures;
use crate::run_paused;

/// The paused clock runs [`SLOWDOWN`] times as fast as the simulated one, as tokio's timers have a grain of 1 ms.
pub(crate) fn measure<M: Mux>(figures: &mut Figures) {
    let (mut pings, shares) = run_paused(pings_beside_bulk::<M>());
    figures.add("loaded_ping_p50_ms", percentile(&mut pings, 50));
    figures.add("loaded_ping_p99_ms", percentile(&mut pings, 99));
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    figures.add("jain", sum * sum / (shares.len() as f64 * squares));
}

/// Times of the pings in simulated milliseconds, and what each bulk transfer received meanwhile.
async fn pings_beside_bulk<M: Mux>() -> (Vec<f64>, Vec<f64>) {
    let (client, server) = Pipe::pair(Road {
        buffer: 16 * 1024,
        per_tick: BYTES_PER_S / 1000 / SLOWDOWN as usize,
        distance: Duration::ZERO,
    });
    let (opener, mut acceptor) = M::start(client, server);
    let mut pairs = connect::<M>(&opener, &mut acceptor, 9).await;
    let (ours, theirs) = pairs.pop().unwrap();
    let mut receivers = Vec::new();
    for (index, (ours, theirs)) in pairs.into_iter().enumerate() {
        let piece = if index == 0 { 1000 } else { 64 * 1024 };
        tokio::spawn(send(ours, piece, M::WRITERS));
        receivers.push(receive(theirs));
    }
    tokio::spawn(echo(theirs));
    sleep(WARM_UP).await;
    let before = counts(&receivers).await;
    let pings = ping(ours).await;
    let after = counts(&receivers).await;
    let shares = before
        .iter()
        .zip(after)
        .map(|(before, after)| after - before);
    (pings, shares.collect())
}

async fn send<S: Transport>(stream: S, piece: usize, writers: Writers) {
    let data = vec![7; piece];
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = async { while write.write_all(&data).await.is_ok() {} };
    match writers {
        Writers::Write => sending.await,
        Writers::ReadToo => {
            tokio::join!(sending, async { drop(read.read_u8().await) });
        }
    }
}

/// A receiver that says how much it got when asked.
type Receiver = (JoinHandle<()>, tokio::sync::watch::Receiver<f64>);

fn receive<S: Transport>(mut stream: S) -> Receiver {
    let (told, count) = tokio::sync::watch::channel(0.0);
    let task = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            told.send_modify(|count| *count += read as f64);
        }
    });
    (task, count)
}

async fn counts(receivers: &[Receiver]) -> Vec<f64> {
    tokio::task::yield_now().await;
    receivers.iter().map(|(_, count)| *count.borrow()).collect()
}

async fn echo<S: Transport>(mut stream: S) {
    let mut message = [0; 64];
    while stream.read_exact(&mut message).await.is_ok() {
        stream.write_all(&message).await.unwrap();
    }
}

async fn ping<S: Transport>(mut stream: S) -> Vec<f64> {
    let mut message = [7; 64];
    let mut times = Vec::new();
    for round in 0..PINGS {
        // Intervals that do not run in step with the transfers: 2.0 to 4.6 simulated milliseconds.
        sleep(TICK * (100 + round * 37 % 131)).await;
        let asked = Instant::now();
        stream.write_all(&message).await.unwrap();
        stream.read_exact(&mut message).await.unwrap();
        times.push(asked.elapsed().as_secs_f64() * 1e3 / f64::from(SLOWDOWN));
    }
    times
}

const BYTES_PER_S: usize = 20_000_000;
const SLOWDOWN: u32 = 50;
const PINGS: u32 = 500;
/// On the paused clock.
const WARM_UP: Duration = Duration::from_secs(10);
