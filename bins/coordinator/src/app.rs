//! The command line.

use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use gomote::Streams;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::error;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::demo;
use crate::reload::Reload;
use crate::secret::Secret;
use crate::server::Server;

/// Leases machines behind NAT to people who need them.
///
/// Machines dial in with `buildlet`, users come with `gomote` or plain `ssh`.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, after_help = EXAMPLES)]
pub struct Args {
    /// Say more: -v for decisions, -vv for every frame. `RUST_LOG` overrides it.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a demo machine; for the demo itself.
    #[command(hide = true)]
    Buildlet(Box<buildlet::Args>),
    /// Try everything on this machine: a coordinator, two machines, and the commands to type.
    Demo(demo::Args),
    /// Run gomote, which is built into this program so that a demo needs no other.
    Gomote(gomote::Args),
    /// Make a secret, and the hash of it for the configuration.
    Secret(SecretArgs),
    /// Serve machines and users as a configuration file says. SIGHUP has it read again.
    Serve(ServeArgs),
}

#[derive(Debug, clap::Args)]
struct SecretArgs {
    /// What it is for: a user's token or a machine's key.
    #[arg(value_enum)]
    kind: SecretKind,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum SecretKind {
    /// A key for machines: goes into the buildlet's key file.
    Machine,
    /// A token for a user: goes into gomote's configuration.
    User,
}

#[derive(Debug, clap::Args)]
struct ServeArgs {
    /// The configuration file, in TOML. The repository has an example with every key: `coordinator.example.toml`.
    #[arg(long, env = "COORDINATOR_CONFIG")]
    config: PathBuf,
    /// Check the configuration and stop.
    #[arg(long)]
    check: bool,
}

/// Runs the command until it is done or `shutdown` resolves.
///
/// # Errors
///
/// An error that names what could not be done.
pub async fn run(
    args: Args,
    shutdown: impl Future<Output = ()> + Send + 'static,
    out: &mut (impl Write + Send),
) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Buildlet(args) => demo::machine(*args, shutdown).await,
        Command::Demo(args) => demo::run(args, shutdown, out).await,
        Command::Gomote(args) => {
            let mut errors = std::io::stderr();
            Ok(
                gomote::run(args, Streams::standard(out, &mut errors), shutdown)
                    .await
                    .into(),
            )
        }
        Command::Secret(args) => secret(args.kind, out),
        Command::Serve(args) => serve(args, shutdown, out).await,
    }
}

async fn serve(
    args: ServeArgs,
    shutdown: impl Future<Output = ()> + Send + 'static,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)
        .with_context(|| format!("configuration {}", args.config.display()))?;
    if args.check {
        writeln!(out, "{} is valid", args.config.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    // From here on a hangup ends nothing.
    let hangup = signal(SignalKind::hangup())?;
    let token = CancellationToken::new();
    let server = Server::bind(config, token.clone()).await?;
    let addresses = &server.addresses;
    writeln!(
        out,
        "https {}\nssh   {}\npin   {}",
        addresses.https, addresses.ssh, addresses.pin
    )?;
    writeln!(out, "host  {}", addresses.ssh_host_key)?;
    out.flush()?;
    let reload = server.reload.clone();
    let ending = async {
        shutdown.await;
        token.cancel();
    };
    let serving = async {
        tokio::join!(server.run(), ending);
    };
    tokio::select! {
        () = serving => {}
        never = reload_on(hangup, &args.config, &reload) => match never {},
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the configuration again at each signal. One that cannot be used changes nothing.
async fn reload_on(mut signal: Signal, path: &Path, reload: &Reload) -> Infallible {
    loop {
        signal.recv().await;
        let config = Config::load(path).map_err(anyhow::Error::from);
        if let Err(error) = config.and_then(|config| reload.take(config)) {
            error!(path = %path.display(), "the configuration stays as it was: {error:#}");
        }
    }
}

fn secret(kind: SecretKind, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let (prefix, key) = match kind {
        SecretKind::Machine => (MACHINE_KEY_PREFIX, "key_hash"),
        SecretKind::User => (USER_TOKEN_PREFIX, "token_hash"),
    };
    let secret = Secret::generate(prefix)?;
    writeln!(out, "{}", secret.expose())?;
    writeln!(out, "{key} = \"{}\"", secret.hash())?;
    Ok(ExitCode::SUCCESS)
}

/// Resolves when the process is asked to end, by SIGINT or SIGTERM.
pub async fn interrupted() {
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

/// Sends log lines to standard error.
pub fn start_tracing(args: &Args) {
    let quiet = matches!(
        args.command,
        Command::Buildlet(_) | Command::Demo(_) | Command::Gomote(_)
    );
    let level = match (args.verbose, quiet) {
        (0, true) => LevelFilter::WARN,
        (0, false) => LevelFilter::INFO,
        (1, _) => LevelFilter::DEBUG,
        (2.., _) => LevelFilter::TRACE,
    };
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

/// Tells a machine's key from a user's token at a glance, and lets secret scanners find both.
pub(crate) const MACHINE_KEY_PREFIX: &str = "gmk_";
pub(crate) const USER_TOKEN_PREFIX: &str = "gmu_";

const EXAMPLES: &str = "\
Examples:
  coordinator demo                      try everything on this machine
  coordinator demo --check              the same, once through, and say whether it works
  coordinator secret machine            a key for machines, and its hash for the configuration
  coordinator serve --config farm.toml  serve for real

Exit codes: 0 done, 1 the work failed, 2 it could not be started.";
