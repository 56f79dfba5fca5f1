//! `coordinator demo`: everything on one machine, as separate processes, in one directory.

mod check;
mod files;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::pool::Pool;
use crate::server::{Addresses, Server};

use files::DemoFiles;

/// What the demo can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Go through the whole path once (lease, copy, run, ssh, destroy), print a line per step, and exit 0 or 1.
    #[arg(long)]
    check: bool,
    /// Where everything is kept. Nothing outside of it is written. Default: `gomote-demo` in the user's data directory;
    /// with --check a temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where to listen for HTTPS; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    https: SocketAddr,
    /// Where to listen for SSH; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    ssh: SocketAddr,
}

/// Runs the demo until `shutdown`, or, with `--check`, until the check is through.
///
/// # Errors
///
/// An error where the demo cannot be started, or a machine does not join.
pub async fn run(
    args: Args,
    shutdown: impl Future<Output = ()> + Send,
    out: &mut (impl Write + Send),
) -> anyhow::Result<ExitCode> {
    let temporary = (args.check && args.dir.is_none())
        .then(|| tempfile::Builder::new().prefix("gomote-demo-").tempdir())
        .transpose()
        .context("making a temporary directory")?;
    let dir = match (&temporary, &args.dir) {
        (Some(temporary), _) => temporary.path().to_owned(),
        (None, Some(dir)) => std::path::absolute(dir)?,
        (None, None) => data_dir()?,
    };
    let files = DemoFiles::prepare(&dir)?;
    let token = CancellationToken::new();
    let server = Server::bind(files.config(args.https, args.ssh), token.clone()).await?;
    // The printed commands name the first instance.
    server.end_leases().await?;
    let addresses = server.addresses.clone();
    files.write_client_files(&addresses)?;
    let pool = server.pool();
    let work = async {
        let _ends_the_server = token.drop_guard();
        let machines = Machines::start(&files, &addresses)?;
        let result = tokio::select! {
            result = session(&args, &files, &addresses, &pool, out) => result,
            () = shutdown => Ok(if args.check { ExitCode::FAILURE } else { ExitCode::SUCCESS }),
        };
        machines.stop().await;
        result
    };
    let ((), result) = tokio::join!(server.run(), work);
    result
}

async fn session(
    args: &Args,
    files: &DemoFiles,
    addresses: &Addresses,
    pool: &Pool,
    out: &mut (impl Write + Send),
) -> anyhow::Result<ExitCode> {
    tokio::time::timeout(JOIN_TIME, pool.joined(MACHINES.len()))
        .await
        .context("the demo machines did not join; run with -v to see why")?;
    if args.check {
        return check::run(files, addresses, out).await;
    }
    print_next_steps(files, addresses, out)?;
    std::future::pending().await
}

/// Runs one machine of the demo, in a process of its own. It ends when its standard input does, so that none is left
/// behind even by a demo that is killed.
///
/// # Errors
///
/// As [`buildlet::run_alone`].
pub async fn machine(
    args: buildlet::Args,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<ExitCode> {
    let orphaned = async {
        // Nobody ever writes: whatever ends the read, the demo is gone.
        let _ = tokio::io::stdin().read(&mut [0]).await;
    };
    let end = async {
        tokio::select! {
            () = shutdown => {}
            () = orphaned => {}
        }
    };
    let supervisor = buildlet::Supervisor::this_program().context("finding this program")?;
    buildlet::run_alone(args, supervisor, end).await?;
    Ok(ExitCode::SUCCESS)
}

/// The machines of the demo, each started again when it ends.
struct Machines {
    stop: CancellationToken,
    keepers: JoinSet<()>,
}

impl Machines {
    fn start(files: &DemoFiles, addresses: &Addresses) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut machines = Self {
            stop: CancellationToken::new(),
            keepers: JoinSet::new(),
        };
        for hostname in MACHINES {
            let mut command = Command::new(&program);
            command.args(files.machine_args(hostname, addresses));
            // A group of its own, so that a Ctrl-C at the terminal reaches us alone and we end them in order.
            command
                .stdin(Stdio::piped())
                .process_group(0)
                .kill_on_drop(true);
            machines
                .keepers
                .spawn(keep_running(hostname, command, machines.stop.clone()));
        }
        Ok(machines)
    }

    async fn stop(self) {
        self.stop.cancel();
        self.keepers.join_all().await;
    }
}

async fn keep_running(hostname: &'static str, mut command: Command, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match command.spawn() {
            Ok(child) => watch(hostname, child, &stop).await,
            Err(error) => error!(hostname, %error, "cannot start a demo machine"),
        }
        tokio::select! {
            () = tokio::time::sleep(RESTART_PAUSE) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn watch(hostname: &str, mut child: Child, stop: &CancellationToken) {
    // Held apart from the child: waiting for a child closes the standard input that it still has.
    let stdin = child.stdin.take();
    tokio::select! {
        status = child.wait() => {
            return warn!(hostname, ?status, "a demo machine ended; starting it again");
        }
        () = stop.cancelled() => drop(stdin),
    }
    if tokio::time::timeout(STOP_TIME, child.wait()).await.is_err() {
        warn!(hostname, "a demo machine did not end by itself; killing it");
        if let Err(error) = child.kill().await {
            error!(hostname, %error, "cannot kill a demo machine");
        }
    }
}

fn print_next_steps(
    files: &DemoFiles,
    addresses: &Addresses,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    write!(
        out,
        "\
demo coordinator (data in {dir}; delete it to start afresh)
  web  https://localhost:{https}/   (certificate pin {pin})
  ssh  localhost:{ssh}
  {count} demo machines joined: {machines}

next, in another terminal:
  export GOMOTE_CONFIG={gomote_config}
  alias gomote='{program} gomote'
  gomote create {BUILDER_TYPE}
  gomote run --system {FIRST_INSTANCE} uname -a
  gomote ssh {FIRST_INSTANCE}
  ssh -F {ssh_config} -p {ssh} {FIRST_INSTANCE}@localhost
  gomote destroy {FIRST_INSTANCE}

Ctrl-C ends everything.
",
        dir = files.dir().display(),
        https = addresses.https.port(),
        ssh = addresses.ssh.port(),
        pin = addresses.pin,
        count = MACHINES.len(),
        machines = MACHINES.join(", "),
        gomote_config = quoted(&files.gomote_config()),
        program = quoted(&program),
        ssh_config = quoted(&files.ssh_config()),
    )?;
    out.flush()?;
    Ok(())
}

/// A path that can be pasted into a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// `$XDG_DATA_HOME/gomote-demo`, or its default (XDG Base Directory Specification).
fn data_dir() -> anyhow::Result<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let data = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")));
    Ok(data
        .context("HOME is not set; say --dir DIR")?
        .join("gomote-demo"))
}

/// What the first instance is called: what the printed commands say.
const FIRST_INSTANCE: &str = "user-gopher-demo-linux-0";
const BUILDER_TYPE: &str = "demo-linux";
const HOST_TYPE: &str = "host-demo-linux";
const USER: &str = "gopher";
const MACHINES: [&str; 2] = ["demo-linux-1", "demo-linux-2"];
const JOIN_TIME: Duration = Duration::from_secs(30);
const RESTART_PAUSE: Duration = Duration::from_secs(1);
const STOP_TIME: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  coordinator demo
  coordinator demo --dir /tmp/demo --https 127.0.0.1:8443 --ssh 127.0.0.1:2222
  coordinator demo --check";
