//! The program from its arguments to its end.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use buildlet_proto::server::{Auth, Server};
use tokio_util::sync::CancellationToken;

use crate::args::{Args, SshMode};
use crate::listen::Listen;
use crate::machine::Machine;
use crate::reverse::Reverse;
use crate::ssh::Ssh;
use crate::workdir::WorkDir;

/// Runs a buildlet until `shutdown` resolves or somebody asks it to halt.
///
/// In reverse mode it dials for ever: a coordinator that cannot be reached is logged and tried again.
///
/// # Errors
///
/// What keeps it from starting: a work directory that is not its own, a key file that cannot be read, an address that
/// is taken.
///
/// # Cancel safety
///
/// Dropping the future ends every connection, and kills the commands that were started over one.
pub async fn run(args: Args, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
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
    let work_dir = WorkDir::prepare(&path)?;
    let ssh = match args.ssh {
        SshMode::Builtin => Ssh::builtin(&work_dir)?,
        SshMode::Off => Ssh::Off,
        SshMode::System => Ssh::system(&args.sshd),
    };
    let machine = Machine::new(work_dir.path(), ssh)?;
    let halt = machine.halt_requested();
    tracing::info!(work_dir = %path.display(), "started");
    tokio::select! {
        served = serve(args, reverse, machine) => served,
        () = halted(halt) => Ok(()),
        () = shutdown => Ok(()),
    }
}

async fn serve(args: Args, reverse: Option<Reverse>, machine: Machine) -> anyhow::Result<()> {
    match reverse {
        // The coordinator proved who it is by its certificate, and it alone can open connections over the link.
        Some(reverse) => reverse.run(Server::new(machine, Auth::open())).await,
        None => {
            let address = args.listen.context("give --coordinator or --listen")?;
            let listen = Listen::bind(address, &args).await?;
            listen.run(machine).await
        }
    }
}

/// Resolves some time after a halt was asked for, so that the reply is out.
async fn halted(requested: CancellationToken) {
    requested.cancelled().await;
    tracing::info!("asked to halt");
    tokio::time::sleep(HALT_DELAY).await;
}

/// What Go's buildlets take.
const HALT_DELAY: Duration = Duration::from_secs(1);
