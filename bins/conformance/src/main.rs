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
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(2)
        }
    }
}

/// Whoever read our output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where errors are printed"
)]
fn report(error: &anyhow::Error) {
    eprintln!("conformance: {error:#}");
}
