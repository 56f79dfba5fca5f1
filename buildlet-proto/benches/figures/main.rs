//! `cargo bench -p buildlet-proto`: what a machine behind this protocol costs, as one line of JSON.
//!
//! Everything is measured beside what it is compared with, in one run, so that the ratios mean something on any machine and
//! also on a busy one. The machine is this program again, in a process of its own, served over loopback.
//! `FIGURES_MIB` sets the size of the tree of files (256), `FIGURES_ROUNDS` the rounds of archives (3).
//!
//! | key | what it is |
//! |---|---|
//! | `tgz_vs_tar_gzip` | how many times as fast as `tar c \| gzip -1` a directory is read |
//! | `writetgz_vs_gzip_tar` | how many times as fast as `gzip -d \| tar x` one is written |
//! | `exec_us`, `job_us` | from the request to the end of `/bin/true`, by `/exec` and as a job, in microseconds |
//! | `exec_vs_plain`, `job_vs_plain` | the same as a multiple of a plain start and wait |
//! | `execs_per_s`, `jobs_per_s`, `plain_per_s` | how many end in a second, eight at a time |
//! | `rss_idle_mib`, `rss_load_mib` | what the machine has in memory before, and at most while it serves 32 commands and 32 jobs of 32 MiB of output each and packs and unpacks 8 archives at a time |

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints")]

mod archive;
mod exec;
mod memory;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::Context;
use buildlet::{JobSettings, Machine, Supervisor};
use buildlet_proto::client::Client;
use buildlet_proto::server::{Auth, Server};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

fn main() -> anyhow::Result<ExitCode> {
    if let Some(ended) = buildlet::supervise() {
        return Ok(ended);
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(arg) if arg == SERVE => {
            let dir = args.next().context("where?")?;
            runtime.block_on(serve(Path::new(&dir)))?;
        }
        // Whatever else cargo gives is for other harnesses.
        _ => println!("{}", runtime.block_on(figures())?),
    }
    Ok(ExitCode::SUCCESS)
}

async fn figures() -> anyhow::Result<String> {
    let mebibytes = setting("FIGURES_MIB", 256)?;
    let rounds = usize::try_from(setting("FIGURES_ROUNDS", 3)?)?;
    let archive = archive::measure(mebibytes, rounds).await?;

    let dir = tempfile::tempdir()?;
    archive::make_tree(&dir.path().join("work/tree"), 32)?;
    let (machine, address) = start(dir.path()).await?;
    let pid = machine.id().context("the machine has ended")?;
    let client = Client::new(move || TcpStream::connect(address));
    let idle = memory::mebibytes(pid, "VmRSS:")?;
    eprintln!("commands");
    let [plain, exec, job] = exec::measure(&client).await?;
    eprintln!("everything at a time");
    memory::load(&client).await?;
    let load = memory::mebibytes(pid, "VmHWM:")?;

    let ratio = |cost: &exec::Cost| cost.time.as_secs_f64() / plain.time.as_secs_f64();
    Ok(format!(
        "{{\"tgz_vs_tar_gzip\":{:.2},\"writetgz_vs_gzip_tar\":{:.2},\"exec_us\":{},\"exec_vs_plain\":{:.2},\
         \"job_us\":{},\"job_vs_plain\":{:.2},\"execs_per_s\":{:.0},\"jobs_per_s\":{:.0},\"plain_per_s\":{:.0},\
         \"rss_idle_mib\":{idle:.1},\"rss_load_mib\":{load:.1}}}",
        archive.pack,
        archive.unpack,
        exec.time.as_micros(),
        ratio(&exec),
        job.time.as_micros(),
        ratio(&job),
        exec.rate,
        job.rate,
        plain.rate,
    ))
}

/// This program again, as a machine.
async fn start(dir: &Path) -> anyhow::Result<(Child, SocketAddr)> {
    let mut machine = Command::new(std::env::current_exe()?);
    machine.arg(SERVE).arg(dir).kill_on_drop(true);
    let mut machine = machine.stdout(Stdio::piped()).spawn()?;
    let output = machine.stdout.take().context("its output is a pipe")?;
    let line = BufReader::new(output).lines().next_line().await?;
    let address = line.context("the machine does not start")?.parse()?;
    Ok((machine, address))
}

async fn serve(dir: &Path) -> anyhow::Result<()> {
    let jobs = JobSettings::new(Supervisor::this_program()?, dir.join("jobs"));
    let machine = Machine::without_ssh(&dir.join("work"), jobs)?;
    let server = Server::new(machine, Auth::open());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await?;
        let server = server.clone();
        connections.spawn(async move { drop(server.serve(tcp).await) });
        while connections.try_join_next().is_some() {}
    }
}

fn setting(name: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(value) => value.parse().with_context(|| format!("{name}={value}")),
        Err(_) => Ok(default),
    }
}

const SERVE: &str = "serve";
