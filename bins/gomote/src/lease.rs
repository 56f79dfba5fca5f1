//! `types`, `create`, `list`, `ping`, `destroy`.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use buildlet_proto::Buildlet;
use buildlet_proto::client::Connect;
use buildlet_proto::coordinator::{BuilderType, CoordinatorClient, Instance};

use crate::cli::{Create, CreateOutput, List, ListOutput, Target, Types, TypesOutput};
use crate::instance;
use crate::streams::Streams;

pub(crate) async fn types<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: &Types,
    streams: &mut Streams<'_>,
) -> anyhow::Result<()> {
    let types = coordinator
        .types()
        .await
        .context("asking what there is to lease")?;
    let text = match args.output {
        TypesOutput::Json => json(&types)?,
        TypesOutput::Name => types
            .iter()
            .map(|each| format!("{}\n", each.name))
            .collect(),
        TypesOutput::Text => types.iter().map(type_line).collect(),
    };
    streams.write(text.as_bytes())
}

pub(crate) async fn create<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: Create,
    streams: &mut Streams<'_>,
) -> anyhow::Result<()> {
    let (builder_type, started) = (&args.builder_type, Instant::now());
    let on_wait = |waiting: buildlet_proto::coordinator::Waiting| {
        let waited = humantime::format_duration(whole_seconds(started.elapsed()));
        let said = [waiting.message, waiting.reason].into_iter();
        let said: String = said
            .filter(|text| !text.is_empty())
            .map(|text| format!(" ({text})"))
            .collect();
        let place = match waiting.ahead {
            0 => "you are next".to_owned(),
            1 => "1 request is ahead of you".to_owned(),
            ahead => format!("{ahead} requests are ahead of you"),
        };
        streams.chat(format_args!(
            "waiting for {builder_type} for {waited}; {place}{said}"
        ));
    };
    let instance = coordinator
        .create(builder_type, on_wait)
        .await
        .with_context(|| format!("creating {builder_type}"))?;
    let text = match args.output {
        CreateOutput::Json => json(&instance)?,
        CreateOutput::Name => format!("{}\n", instance.name),
    };
    streams.write(text.as_bytes())?;
    let left = humantime::format_duration(whole_seconds(instance.remaining(SystemTime::now())));
    streams.chat(format_args!("leased for {left}, and as long as you use it"));
    Ok(())
}

pub(crate) async fn list<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: &List,
    streams: &mut Streams<'_>,
) -> anyhow::Result<()> {
    let instances = coordinator.list().await.context("listing your instances")?;
    let text = match args.output {
        ListOutput::Json => json(&instances)?,
        ListOutput::Name => instances
            .iter()
            .map(|instance| format!("{}\n", instance.name))
            .collect(),
        ListOutput::Text => instances.iter().map(line).collect(),
    };
    streams.write(text.as_bytes())?;
    if instances.is_empty() {
        streams.chat("you hold no instance; `gomote create TYPE` leases one");
    }
    Ok(())
}

pub(crate) async fn ping<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: &Target,
    streams: &mut Streams<'_>,
) -> anyhow::Result<()> {
    let (instance, buildlet) = instance::find(coordinator, &args.instance).await?;
    let work_dir = buildlet
        .work_dir()
        .await
        .with_context(|| format!("asking {}", instance.name))?;
    streams.chat(format_args!(
        "{} is alive; its work directory is {work_dir:?}",
        instance.name
    ));
    Ok(())
}

pub(crate) async fn destroy<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: &Target,
) -> anyhow::Result<()> {
    let (instance, buildlet) = instance::find(coordinator, &args.instance).await?;
    buildlet
        .halt()
        .await
        .with_context(|| format!("destroying {}", instance.name))
}

/// The line of Go's gomote.
fn line(instance: &Instance) -> String {
    let left = humantime::format_duration(whole_seconds(instance.remaining(SystemTime::now())));
    let Instance {
        name,
        builder_type,
        host_type,
        ..
    } = instance;
    let restarted = instance.restarted.map_or(String::new(), |at| {
        let ago = SystemTime::now().duration_since(at).unwrap_or_default();
        let ago = humantime::format_duration(whole_seconds(ago));
        format!("\trestarted {ago} ago, with an empty work directory")
    });
    format!("{name}\t{builder_type}\t{host_type}\texpires in {left}{restarted}\n")
}

fn type_line(builder_type: &BuilderType) -> String {
    let BuilderType {
        name,
        host_type,
        machines,
        idle,
        waiting,
        ..
    } = builder_type;
    format!("{name}\t{host_type}\t{idle} of {machines} idle\t{waiting} waiting\n")
}

fn json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}
