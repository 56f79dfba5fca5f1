//! gomote. What it does is in [`gomote::run`].

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use gomote::{Args, Streams};

/// Leases machines, runs commands on them, copies files, opens SSH sessions
#[derive(Parser)]
#[command(name = "gomote", version)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(gomote::accept_go_flags(std::env::args_os()));
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return not_started(&error),
    };
    let (mut output, mut errors) = (io::stdout(), io::stderr());
    let exit = runtime.block_on(gomote::run(
        cli.args,
        Streams::standard(&mut output, &mut errors),
        interrupted(),
    ));
    // A read of standard input that nobody waits for any more must not keep the program.
    runtime.shutdown_timeout(Duration::ZERO);
    exit.into()
}

fn not_started(error: &io::Error) -> ExitCode {
    // Where this cannot be said either, the exit code has to do.
    let _ = writeln!(io::stderr(), "gomote: {error}");
    ExitCode::from(2)
}

/// Resolves when the process is asked to end, by SIGINT or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        // Without handlers the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
