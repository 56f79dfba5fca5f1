//! What the multiplexer costs: ratios to the bare transport and to two other multiplexers, taken in one run.
//!
//! A table for people goes to standard error, one line of JSON to standard output. `benches/README.md` says how each
//! figure is taken and how to read it.

#![expect(clippy::unwrap_used, reason = "a measurement that fails is no figure")]
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "this is a program"
)]
#![expect(clippy::cast_precision_loss, reason = "the figures are far below 2^52")]

mod bulk;
mod churn;
mod distance;
mod heap;
mod loaded;
mod measure;
mod muxes;
mod ping_pong;
mod pipe;
mod report;

use std::future::Future;

use crate::heap::CountingAllocator;
use crate::muxes::{Revdial, TokioYamux, Yamux};
use crate::report::Report;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&str> = wanted
        .iter()
        .map(String::as_str)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let mut report = Report::default();
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.contains(&name) {
            measure(&mut report);
        }
    }
    eprint!("{}", report.table());
    println!("{}", report.json());
}

type Part = (&'static str, fn(&mut Report));

/// What can be named on the command line; without a name all are measured.
const PARTS: [Part; 6] = [
    ("bulk", |report| {
        report.add_all("one_stream_vs_tcp", bulk::against_tcp(1));
        report.add_all("sixteen_streams_vs_tcp", bulk::against_tcp(16));
    }),
    ("ping_pong", |report| {
        report.add_all("ping_pong_vs_tcp", ping_pong::against_tcp());
    }),
    ("loaded", |report| {
        loaded::measure::<Revdial>(&mut report.revdial);
        loaded::measure::<Yamux>(&mut report.yamux);
        loaded::measure::<TokioYamux>(&mut report.tokio_yamux);
    }),
    ("heap", |report| {
        heap::measure_streams::<Revdial>(&mut report.revdial);
        heap::measure_streams::<Yamux>(&mut report.yamux);
        heap::measure_streams::<TokioYamux>(&mut report.tokio_yamux);
        heap::measure_link(&mut report.revdial);
    }),
    ("churn", |report| {
        churn::measure::<Revdial>(&mut report.revdial);
        churn::measure::<Yamux>(&mut report.yamux);
        churn::measure::<TokioYamux>(&mut report.tokio_yamux);
    }),
    ("distance", |report| distance::measure(&mut report.revdial)),
];

/// Runs one measurement with both ends on one thread.
fn run<F: Future>(body: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(body)
}

/// Runs one measurement on a clock that jumps whenever everybody waits.
fn run_paused<F: Future>(body: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(body)
}
