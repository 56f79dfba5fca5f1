//! Runs the conformance suite against built-in transports.

use std::process::ExitCode;

use clap::Parser;
use conformance_runner::{Args, Verdict, run};

/// Counts allocations, so that the cases about memory apply.
#[global_allocator]
static ALLOCATOR: conn_conformance::CountingAllocator = conn_conformance::CountingAllocator;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args, &mut std::io::stdout().lock()) {
        Ok(Verdict::Kept) => ExitCode::SUCCESS,
        Ok(Verdict::Broken) => ExitCode::from(1),
        Err(error) => {
            report(&error);
            ExitCode::from(2)
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where errors are printed"
)]
fn report(error: &anyhow::Error) {
    eprintln!("conformance: {error:#}");
}
