//! A TCP tunnel out of a network that cannot be reached: what connects to the server's `--entry` comes out of the
//! client, as a connection to its `--to`.
//!
//! ```console
//! $ cargo run --release -p revdial --features rustls --example tunnel -- --help
//! ```

mod args;
mod check;
mod client;
mod copy;
mod http;
mod server;
mod tls;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use self::args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let threads = match args.threads {
        Some(threads) => threads.into(),
        // The other half is for those whom the tunnel connects. One thread against two, on two cores: a seventh less
        // processor time for each byte.
        None => (std::thread::available_parallelism()?.get() / 2).max(1),
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        match args.command {
            Command::Check => check::run().await,
            Command::Client(client) => client::run(client).await,
            Command::Server(server) => server::Server::bind(&server).await?.run().await,
        }
    })
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where the program says why it ended"
)]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("tunnel: {error:#}");
    ExitCode::FAILURE
}
