//! How a window grows over a long road: one stream at 50 ms round trip time.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use crate::muxes::{Mux, Revdial, connect};
use crate::pipe::{Pipe, Road, TICK};
use crate::report::Figures;
use crate::run_paused;

pub(crate) fn measure(figures: &mut Figures) {
    // 1 Gbit/s needs 6 MiB under way; without a limit the 16 MiB that one stream may have are the limit.
    for (per_tick, keys) in [
        (
            Some(125_000),
            ["rtt50_gigabit_round_trips", "rtt50_gigabit_share"],
        ),
        (
            None,
            ["rtt50_unlimited_round_trips", "rtt50_unlimited_share"],
        ),
    ] {
        let goal = per_tick.map_or(BUDGET, |bytes| bytes * 50).min(BUDGET) as f64;
        let received = run_paused(received_per_round_trip(per_tick.unwrap_or(BUDGET)));
        let shares: Vec<f64> = received.iter().map(|bytes| bytes / goal).collect();
        let reached = shares.iter().position(|share| *share >= 0.9);
        figures.add(
            keys[0],
            reached.map_or(f64::INFINITY, |index| (index + 1) as f64),
        );
        figures.add(keys[1], *shares.last().unwrap());
        if per_tick.is_none() {
            let windows = received.iter().map(|bytes| (bytes / 1024.0).round());
            figures.add_list("rtt50_windows_kib", windows.collect());
        }
    }
}

pub(crate) async fn received_per_round_trip(per_tick: usize) -> Vec<f64> {
    let (client, server) = Pipe::pair(Road {
        buffer: per_tick.max(256 * 1024),
        per_tick,
        distance: ROUND_TRIP / 2 - TICK,
    });
    let (opener, mut acceptor) = Revdial::start(client, server);
    let (mut ours, mut theirs) = connect::<Revdial>(&opener, &mut acceptor, 1)
        .await
        .remove(0);
    let began = Instant::now();
    let sending = tokio::spawn(async move {
        let data = vec![7; 64 * 1024];
        while ours.write_all(&data).await.is_ok() {}
    });
    let mut received = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    for round in 1..=ROUNDS {
        let end = began + ROUND_TRIP * round;
        let mut count = 0;
        loop {
            tokio::select! {
                biased;
                () = sleep_until(end) => break,
                read = theirs.read(&mut buffer) => count += read.unwrap(),
            }
        }
        received.push(count as f64);
    }
    sending.abort();
    received
}

const ROUND_TRIP: Duration = Duration::from_millis(50);
/// `Config::max_stream_window`.
const BUDGET: usize = 16 * 1024 * 1024;
/// Round trips that are watched.
const ROUNDS: u32 = 20;
