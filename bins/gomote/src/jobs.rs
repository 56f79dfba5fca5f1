//! `run` over jobs, `jobs`, `logs`, `attach`, `wait` and `kill`.

use std::io::Cursor;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;
use buildlet_proto::client::{Client, Connect, JobEvent};
use buildlet_proto::coordinator::CoordinatorClient;
use buildlet_proto::jobs::frame::Stream;
use buildlet_proto::jobs::{
    Job, JobCommand, JobId, JobReason, JobRequest, JobState, OutputRequest, SignalRequest,
    SignalTarget, StdinRequest,
};
use buildlet_proto::{ApiError, Buildlet, ErrorStatus};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::cli::{JobTarget, Jobs, JobsOutput, Kill, Logs};
use crate::exec;
use crate::exit::Exit;
use crate::instance;
use crate::streams::Streams;

/// Starts a job, or finds the one that was started with this key. `None` where the machine knows of no jobs, as those
/// of Go.
pub(crate) async fn start<C: Connect>(
    buildlet: &Client<C>,
    request: &JobRequest,
    key: &str,
) -> Result<Option<Job>, ApiError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let key = Some(key.to_owned());
        match buildlet.start_job(request.clone(), key).await {
            Ok(job) => return Ok(Some(job)),
            Err(error) if error.status() == ErrorStatus::NOT_FOUND => return Ok(None),
            // With the same key it is the same job, whether or not the request had arrived.
            Err(error) if attempts < ATTEMPTS && may_pass(&error) => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Shows a job from `from` on to its end, gives it what there is to read, and exits as it does.
pub(crate) async fn follow<C: Connect>(
    buildlet: &Client<C>,
    id: JobId,
    from: OutputRequest,
    streams: &mut Streams<'_>,
    input: Option<Pin<Box<dyn AsyncRead + Send>>>,
) -> anyhow::Result<Exit> {
    let mut output = buildlet.follow_job(id, from);
    let feeding = async {
        if let Some(input) = input {
            feed(buildlet, id, input).await;
        }
        // The job ends, and not what it reads.
        std::future::pending::<()>().await;
    };
    tokio::pin!(feeding);
    let job = loop {
        let event = tokio::select! {
            event = output.next() => event?,
            () = &mut feeding => continue,
        };
        if let Some(job) = show(event, streams)? {
            break job;
        }
    };
    Ok(exit(&job, streams))
}

/// Shows what came; gives the job where that was the end.
fn show(event: JobEvent, streams: &mut Streams<'_>) -> anyhow::Result<Option<Job>> {
    match event {
        JobEvent::Data {
            stream: Stream::Stdout,
            bytes,
            ..
        } => {
            streams.write(&bytes)?;
            streams.flush()?;
        }
        JobEvent::Data { bytes, .. } => streams.write_error(&bytes),
        JobEvent::Gap { offset, end, .. } => streams.warn(format_args!(
            "{} bytes of the output were not kept",
            end - offset
        )),
        JobEvent::End(job) => return Ok(Some(*job)),
        JobEvent::Retrying { why } => {
            streams.warn(format_args!("trying to go on where it was cut: {why}"));
        }
        _ => {}
    }
    Ok(None)
}

/// Gives a job what there is to read, until one of them has had enough.
async fn feed<C: Connect>(
    buildlet: &Client<C>,
    id: JobId,
    mut input: Pin<Box<dyn AsyncRead + Send>>,
) {
    let Some(mut offset) = send(buildlet, id, StdinRequest::default(), &[]).await else {
        return;
    };
    let mut buffer = vec![0; CHUNK];
    loop {
        // Input that cannot be read any more has ended.
        let count = input.read(&mut buffer).await.unwrap_or(0);
        let mut place = StdinRequest::at(offset);
        if count == 0 {
            place = place.and_close();
        }
        match send(buildlet, id, place, &buffer[..count]).await {
            Some(taken) if count > 0 => offset = taken,
            _ => return,
        }
    }
}

/// Sends some bytes, over as many connections as it takes; `None` where the job takes no more.
async fn send<C: Connect>(
    buildlet: &Client<C>,
    id: JobId,
    place: StdinRequest,
    bytes: &[u8],
) -> Option<u64> {
    loop {
        let content = Box::pin(Cursor::new(bytes.to_vec()));
        match buildlet.write_job_stdin(id, place, content).await {
            Ok(taken) => return Some(taken.taken),
            // Whoever follows the output gives up in time.
            Err(error) if may_pass(&error) => tokio::time::sleep(PAUSE).await,
            Err(_) => return None,
        }
    }
}

/// Kills a job whose start was given up before its id came back.
///
/// It is asked for once more: with the same key it is the same job, whether the first request has arrived, is still on
/// its way, or is lost.
pub(crate) async fn kill_started<C: Connect>(
    buildlet: Client<C>,
    request: JobRequest,
    key: String,
) {
    if let Ok(Some(job)) = start(&buildlet, &request, &key).await {
        kill_whole(buildlet, job.id).await;
    }
}

/// Kills a job of which nobody waits for the end.
pub(crate) async fn kill_whole<C: Connect>(buildlet: Client<C>, id: JobId) {
    let kill = SignalRequest::new(buildlet_proto::jobs::Signal::Kill, SignalTarget::Tree);
    // There is nobody to tell any more.
    let _ = buildlet.signal_job(id, kill).await;
}

pub(crate) async fn list<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: &Jobs,
    streams: &mut Streams<'_>,
) -> anyhow::Result<()> {
    let (instance, buildlet) = instance::find(coordinator, &args.target.instance).await?;
    let jobs = buildlet
        .list_jobs()
        .await
        .with_context(|| format!("listing the jobs of {}", instance.name))?;
    match args.output {
        JobsOutput::Json => {
            let mut json = serde_json::to_vec_pretty(&jobs)?;
            json.push(b'\n');
            streams.write(&json)
        }
        JobsOutput::Text => {
            for job in jobs {
                // Its own line feeds and tabs would be taken for ours.
                let command = command(&job).replace(['\n', '\t'], " ");
                let line = format!("{}\t{}\t{command}\n", job.id, state(&job));
                streams.write_listing(&mut line.into_bytes())?;
            }
            Ok(())
        }
    }
}

pub(crate) async fn logs<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: &Logs,
    streams: &mut Streams<'_>,
) -> anyhow::Result<()> {
    let (_, buildlet) = instance::find(coordinator, &args.target.target.instance).await?;
    let mut from = OutputRequest::new();
    from.follow = args.follow;
    let mut output = buildlet.follow_job(args.target.job, from);
    loop {
        let event = output.next().await.context("reading the job's output")?;
        if show(event, streams)?.is_some() {
            return Ok(());
        }
    }
}

pub(crate) async fn attach<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: &JobTarget,
    streams: &mut Streams<'_>,
) -> anyhow::Result<Exit> {
    let (_, buildlet) = instance::find(coordinator, &args.target.instance).await?;
    let input = input(streams);
    let from = OutputRequest::following(0, 0);
    follow(&buildlet, args.job, from, streams, input)
        .await
        .context("following the job")
}

pub(crate) async fn wait<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: &JobTarget,
    streams: &mut Streams<'_>,
) -> anyhow::Result<Exit> {
    let (_, buildlet) = instance::find(coordinator, &args.target.instance).await?;
    let job = buildlet.job(args.job).await.context("asking for the job")?;
    let from = OutputRequest::following(job.stdout.end, job.stderr.end);
    let mut output = buildlet.follow_job(args.job, from);
    loop {
        let event = output.next().await.context("waiting for the job")?;
        if let JobEvent::End(job) = event {
            return Ok(exit(&job, streams));
        }
    }
}

pub(crate) async fn kill<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: &Kill,
    streams: &mut Streams<'_>,
) -> anyhow::Result<Exit> {
    let (_, buildlet) = instance::find(coordinator, &args.target.target.instance).await?;
    let signal = SignalRequest::new(args.signal, SignalTarget::Tree);
    let job = buildlet
        .signal_job(args.target.job, signal)
        .await
        .context("signalling the job")?;
    if job.survivors.is_empty() {
        return Ok(Exit::OK);
    }
    streams.warn(format_args!(
        "these processes did not end: {:?}",
        job.survivors
    ));
    Ok(Exit::FAILED)
}

/// What a command is to read: nothing that a person types.
pub(crate) fn input(streams: &mut Streams<'_>) -> Option<Pin<Box<dyn AsyncRead + Send>>> {
    if streams.input_is_terminal {
        return None;
    }
    Some(std::mem::replace(
        &mut streams.input,
        Box::pin(tokio::io::empty()),
    ))
}

fn exit(job: &Job, streams: &mut Streams<'_>) -> Exit {
    let Some(end) = &job.end else {
        streams.warn("the machine does not tell how the command ended");
        return Exit::NOT_THE_COMMAND;
    };
    match end.reason {
        Some(JobReason::SupervisorLost) => {
            streams.warn("how the command ended is not known: what watches over it was killed");
            return Exit::NOT_THE_COMMAND;
        }
        Some(JobReason::TimeLimit) => streams.warn("the command took longer than it may"),
        _ => {}
    }
    exec::exit(&end.process_state, streams)
}

fn state(job: &Job) -> &str {
    match (job.state, &job.end) {
        (JobState::Running, _) | (_, None) => "running",
        (_, Some(end)) => end.process_state.as_str(),
    }
}

fn command(job: &Job) -> String {
    match &job.about.command {
        JobCommand::Argv(argv) => argv.join(" "),
        JobCommand::Shell(script) => script.clone(),
        _ => String::new(),
    }
}

/// Whether the machine, or the way to it, may be there again in a moment.
pub(crate) fn may_pass(error: &ApiError) -> bool {
    let is_expired = error
        .message()
        .contains(buildlet_proto::coordinator::EXPIRED);
    error.status().status().is_server_error()
        && error.status() != ErrorStatus::UNAVAILABLE
        && !is_expired
}

/// A name that no other request has.
pub(crate) fn key() -> String {
    use std::hash::{BuildHasher, RandomState};
    let half = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", half(), half())
}

/// How often a start is tried, and the pause between two attempts.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// As much as is sent again where a connection is cut.
const CHUNK: usize = 256 * 1024;
