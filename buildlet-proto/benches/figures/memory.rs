//! What a machine has in memory, idle and at its busiest.

use anyhow::{Context, ensure};
use buildlet_proto::client::{Client, Connect, JobEvent};
use buildlet_proto::jobs::{JobRequest, OutputRequest};
use buildlet_proto::{Buildlet, ExecRequest, RelPath};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

/// Has everything done at a time: commands and jobs with much output, archives both ways.
pub(crate) async fn load<C: Connect>(client: &Client<C>) -> anyhow::Result<()> {
    let mut busy = JoinSet::new();
    for _ in 0..COMMANDS {
        busy.spawn(exec(client.clone()));
        busy.spawn(job(client.clone()));
    }
    for number in 0..ARCHIVES {
        busy.spawn(archive(client.clone(), number));
    }
    while let Some(done) = busy.join_next().await {
        done??;
    }
    Ok(())
}

async fn exec(client: Client<impl Connect>) -> anyhow::Result<()> {
    let mut request = ExecRequest::system("head");
    request.args = ["-c", OUTPUT, "/dev/zero"].map(str::to_owned).to_vec();
    let mut execution = client.exec(request).await?;
    let read = tokio::io::copy(&mut execution.output, &mut tokio::io::sink()).await?;
    let state = execution.state.await?;
    ensure!(state.is_ok() && OUTPUT.parse() == Ok(read), "{read} bytes");
    Ok(())
}

async fn job(client: Client<impl Connect>) -> anyhow::Result<()> {
    let request = JobRequest::argv(["head", "-c", OUTPUT, "/dev/zero"]);
    let job = client.start_job(request, None).await?;
    let mut output = client.follow_job(job.id, OutputRequest::following(0, 0));
    while !matches!(output.next().await?, JobEvent::End(_)) {}
    ensure!(OUTPUT.parse() == Ok(output.position().stdout), "a part");
    Ok(())
}

async fn archive(client: Client<impl Connect>, number: usize) -> anyhow::Result<()> {
    let mut archive = Vec::new();
    let mut reader = client.read_tgz(RelPath::new("tree")?).await?;
    reader.read_to_end(&mut archive).await?;
    let dir = RelPath::new(&format!("copy{number}"))?;
    let archive = Box::pin(std::io::Cursor::new(archive));
    Ok(client.write_tgz(dir, archive).await?)
}

/// A line of `/proc/PID/status`, in MiB.
pub(crate) fn mebibytes(pid: u32, what: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let number = line.and_then(|line| line.split_whitespace().next());
    let kibibytes: f64 = number.with_context(|| format!("no {what}"))?.parse()?;
    Ok(kibibytes / 1024.0)
}

/// As many commands as jobs, below the hundred that may run.
const COMMANDS: usize = 32;
const ARCHIVES: usize = 8;
const OUTPUT: &str = "33554432";
