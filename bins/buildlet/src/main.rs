//! Runs a buildlet.

use std::io::IsTerminal;
use std::process::ExitCode;

use buildlet::Args;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Runs commands and moves files on this machine for whoever leases it.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into(), ExitCode::from(2)),
    };
    match runtime.block_on(buildlet::run(cli.args, shutdown())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, ExitCode::FAILURE),
    }
}

/// Resolves when the system asks the program to end.
async fn shutdown() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
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
