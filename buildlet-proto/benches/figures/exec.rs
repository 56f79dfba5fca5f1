//! What a supervised command costs, against the same command started plainly.
//!
//! Rounds of all kinds take turns, so that a busy machine disturbs all alike; a time is the median of them.

use std::future::Future;
use std::pin::Pin;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::ensure;
use buildlet_proto::client::{Client, Connect, JobEvent};
use buildlet_proto::jobs::{JobRequest, OutputRequest};
use buildlet_proto::{Buildlet, ExecRequest};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::task::JoinSet;

/// What a command costs that does nothing.
pub(crate) struct Cost {
    /// One at a time.
    pub(crate) time: Duration,
    /// Several at a time: how many in a second.
    pub(crate) rate: f64,
}

/// The cost of a plain start, of `/exec` and of a job, both from the request to the end.
pub(crate) async fn measure(client: &Client<impl Connect>) -> anyhow::Result<[Cost; 3]> {
    let kinds: [Start<'_>; 3] = [
        Box::new(|| Box::pin(plain())),
        Box::new(|| Box::pin(exec(client.clone()))),
        Box::new(|| Box::pin(job(client.clone()))),
    ];
    let mut times = [(); 3].map(|()| Vec::new());
    for _ in 0..ROUNDS {
        for (round, times) in kinds.iter().zip(&mut times) {
            let began = Instant::now();
            round().await?;
            times.push(began.elapsed());
        }
    }
    let mut costs = Vec::new();
    for (round, mut times) in kinds.iter().zip(times) {
        times.sort();
        costs.push(Cost {
            time: times[times.len() / 2],
            rate: rate(round).await?,
        });
    }
    costs
        .try_into()
        .map_err(|_| anyhow::anyhow!("three kinds have three costs"))
}

/// What starts a round.
type Start<'a> = Box<dyn Fn() -> Round + Sync + 'a>;

type Round = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

async fn rate(round: &Start<'_>) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut running = JoinSet::new();
    let mut done = 0;
    while began.elapsed() < RATE_TIME {
        while running.len() < CONCURRENT {
            running.spawn(round());
        }
        if let Some(ended) = running.join_next().await {
            ended??;
        }
        done += 1;
    }
    let rate = f64::from(done) / began.elapsed().as_secs_f64();
    running.join_all().await;
    Ok(rate)
}

async fn plain() -> anyhow::Result<()> {
    let mut command = Command::new(PROGRAM);
    let output = command.stdin(Stdio::null()).output().await?;
    ensure!(output.status.success(), "{PROGRAM}: {}", output.status);
    Ok(())
}

async fn exec(client: Client<impl Connect>) -> anyhow::Result<()> {
    let mut execution = client.exec(ExecRequest::system(PROGRAM)).await?;
    execution.output.read_to_end(&mut Vec::new()).await?;
    let state = execution.state.await?;
    ensure!(state.is_ok(), "{PROGRAM}: {state}");
    Ok(())
}

async fn job(client: Client<impl Connect>) -> anyhow::Result<()> {
    let request = JobRequest::argv([PROGRAM]);
    let job = client.start_job(request, None).await?;
    let mut output = client.follow_job(job.id, OutputRequest::following(0, 0));
    let JobEvent::End(job) = output.next().await? else {
        anyhow::bail!("output of a program that writes nothing");
    };
    let is_ok = job.end.is_some_and(|end| end.process_state.is_ok());
    ensure!(is_ok, "{PROGRAM} as a job");
    Ok(())
}

const PROGRAM: &str = "/bin/true";
const ROUNDS: usize = 300;
const CONCURRENT: usize = 8;
const RATE_TIME: Duration = Duration::from_secs(3);
