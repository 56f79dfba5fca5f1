//! The program from its arguments to its end.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::{Args, SshMode};
use crate::health::{Health, HealthPort};
use crate::jobs::JobSettings;
use crate::listen::Listen;
use crate::machine::Machine;
use crate::reverse::{Reverse, proxies};
use crate::ssh::Ssh;
use crate::strays::{MARK, Process, Strays};
use crate::supervisor::Supervisor;
use crate::workdir::WorkDir;

/// Runs a buildlet until `shutdown` resolves or somebody asks it to halt.
///
/// In reverse mode it dials for ever: a coordinator that cannot be reached is logged and tried again. Every command is
/// watched over by a process that `supervisor` starts; where the program calls [`supervise`](crate::supervise) first, that
/// is [`Supervisor::this_program`].
///
/// # Errors
///
/// What keeps it from starting: a work directory that is not its own, a key file that cannot be read, an address that
/// is taken.
///
/// # Cancel safety
///
/// Dropping the future ends every connection, and kills all commands.
pub async fn run(
    args: Args,
    supervisor: Supervisor,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    start(args, supervisor, Process::Shared, shutdown).await
}

/// Like [`run`], in a process that starts nothing itself: then whatever runs below it is what somebody has left behind, and
/// is killed where a machine is wiped, with or without the mark that commands carry.
///
/// # Errors
///
/// As [`run`].
///
/// # Cancel safety
///
/// As [`run`].
pub async fn run_alone(
    args: Args,
    supervisor: Supervisor,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    start(args, supervisor, Process::Alone, shutdown).await
}

async fn start(
    args: Args,
    supervisor: Supervisor,
    process: Process,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let host_type = args.host_type.as_deref().unwrap_or("local");
    let path = match &args.workdir {
        Some(path) => std::path::absolute(path)?,
        None => WorkDir::default_path(host_type),
    };
    // What is asked for is checked before anything is wiped.
    let reverse = args
        .coordinator
        .as_ref()
        .map(|_| Reverse::new(&args))
        .transpose()?;
    let proxies = proxies(args.proxy.as_ref())?;
    let health_port = match args.health_addr {
        Some(address) => Some(HealthPort::bind(address).await?),
        None => None,
    };
    let work_dir = WorkDir::claim(&path).await?;
    let strays = Strays::new(work_dir.mark(), process);
    strays.kill().await;
    work_dir.wipe()?;
    let ssh = match args.ssh {
        SshMode::Builtin => Ssh::builtin(&work_dir)?,
        SshMode::Off => Ssh::Off,
        SshMode::System => Ssh::system(&args.sshd),
    };
    let mut jobs = JobSettings::new(supervisor, work_dir.state_dir().join("jobs"));
    jobs.limits = args.jobs.clone();
    jobs.mark = Some((MARK, work_dir.mark().to_owned()));
    let machine = Machine::new(work_dir.path(), jobs, ssh)?
        .with_reserve(args.min_free_mib << 20)
        .with_low_disk(args.low_disk_mib.unwrap_or(args.min_free_mib) << 20)
        .with_strays(strays.clone())
        .with_proxies(proxies)
        .with_tcp_ports(args.allow_tcp_ports.iter().copied());
    let halt = machine.halt_requested();
    let health = machine.health();
    tracing::info!(work_dir = %path.display(), "started");
    let ended = tokio::select! {
        served = serve(args, reverse, machine) => served,
        () = answer_watchdogs(health_port, health) => Ok(()),
        () = strays.reap() => Ok(()),
        () = halted(halt) => Ok(()),
        () = shutdown => Ok(()),
    };
    // Jobs ended with the machine.
    strays.kill().await;
    ended
}

async fn serve(args: Args, reverse: Option<Reverse>, machine: Machine) -> anyhow::Result<()> {
    match reverse {
        // The coordinator proved who it is by its certificate, and it alone can open connections over the link.
        Some(reverse) => reverse.run(machine).await,
        None => {
            let address = args.listen.context("give --coordinator or --listen")?;
            let listen = Listen::bind(address, &args).await?;
            listen.run(machine).await
        }
    }
}

async fn answer_watchdogs(port: Option<HealthPort>, health: Health) {
    match port {
        Some(port) => port.run(health).await,
        None => std::future::pending().await,
    }
}

/// Resolves some time after a halt was asked for, so that the reply is out.
async fn halted(requested: CancellationToken) {
    requested.cancelled().await;
    tracing::info!("asked to halt");
    tokio::time::sleep(HALT_DELAY).await;
}

/// Resolves when the system asks the program to end.
pub async fn interrupted() {
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

/// What Go's buildlets take.
const HALT_DELAY: Duration = Duration::from_secs(1);
