//! Runs a buildlet.

use std::io::IsTerminal;
use std::process::ExitCode;

use buildlet::{Args, Supervisor};
use clap::Parser;
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

/// Runs commands and moves files on this machine for whoever leases it.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    if let Some(ended) = buildlet::supervise() {
        return ended;
    }
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let (supervisor, runtime) = match (Supervisor::this_program(), Runtime::new()) {
        (Ok(supervisor), Ok(runtime)) => (supervisor, runtime),
        (Err(error), _) | (_, Err(error)) => return fail(&error.into(), ExitCode::from(2)),
    };
    match runtime.block_on(buildlet::run_alone(
        cli.args,
        supervisor,
        buildlet::interrupted(),
    )) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, ExitCode::FAILURE),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where the program says why it ended"
)]
fn fail(error: &anyhow::Error, code: ExitCode) -> ExitCode {
    eprintln!("buildlet: {error:#}");
    code
}
