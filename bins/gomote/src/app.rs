//! The program, as a table of contents.

use std::sync::Arc;

use buildlet_proto::coordinator::CoordinatorClient;

use crate::cli::{Args, Command};
use crate::config::Settings;
use crate::exit::{self, Exit};
use crate::interrupt::OnInterrupt;
use crate::server::Server;
use crate::streams::{OutputClosed, Streams};
use crate::{exec, files, jobs, lease, ssh};

/// Does what `args` say, until it is done or `shutdown` resolves. Errors are written to `streams.errors`, with what to
/// do next.
///
/// # Cancel safety
///
/// Dropping the future hangs up: a file in the making is removed. The command of `run` goes on, where the machine has jobs;
/// `shutdown` kills it.
pub async fn run(args: Args, mut streams: Streams<'_>, shutdown: impl Future<Output = ()>) -> Exit {
    let own_failure = args.command.own_failure();
    let on_interrupt = OnInterrupt::default();
    let result = tokio::select! {
        result = Box::pin(dispatch(args, &mut streams, &on_interrupt)) => result,
        () = shutdown => {
            on_interrupt.clean_up().await;
            Ok(Exit::INTERRUPTED)
        }
    };
    match result {
        Ok(exit) => exit,
        // Whoever read our output has had enough.
        Err(error) if error.is::<OutputClosed>() => {
            on_interrupt.clean_up().await;
            Exit::OK
        }
        Err(error) => {
            streams.warn(format_args!("{error:#}"));
            if let Some(advice) = exit::advice(&error) {
                streams.warn(advice);
            }
            own_failure.unwrap_or_else(|| Exit::of_error(&error))
        }
    }
}

async fn dispatch(
    args: Args,
    streams: &mut Streams<'_>,
    on_interrupt: &OnInterrupt,
) -> anyhow::Result<Exit> {
    let settings = Settings::load(&args.flags)?;
    let server = Arc::new(Server::new(&settings)?);
    let coordinator = CoordinatorClient::new(
        move || server.clone().connect(),
        &settings.authority,
        &settings.user,
        &settings.token,
    );
    match args.command {
        Command::Attach(args) => return jobs::attach(&coordinator, &args, streams).await,
        Command::Create(args) => lease::create(&coordinator, args, streams).await?,
        Command::Destroy(args) => lease::destroy(&coordinator, &args).await?,
        Command::Gettar(args) => files::gettar(&coordinator, args, streams).await?,
        Command::Jobs(args) => jobs::list(&coordinator, &args, streams).await?,
        Command::Kill(args) => return jobs::kill(&coordinator, &args, streams).await,
        Command::List(args) => lease::list(&coordinator, &args, streams).await?,
        Command::Logs(args) => jobs::logs(&coordinator, &args, streams).await?,
        Command::Ls(args) => files::ls(&coordinator, args, streams).await?,
        Command::Ping(args) => lease::ping(&coordinator, &args, streams).await?,
        Command::Put(args) => files::put(&coordinator, args, streams).await?,
        Command::Puttar(args) => files::puttar(&coordinator, args, streams).await?,
        Command::Rm(args) => files::rm(&coordinator, args).await?,
        Command::Run(args) => return exec::run(&coordinator, args, streams, on_interrupt).await,
        Command::Ssh(args) => {
            return ssh::ssh(&coordinator, &settings.gateway, args, streams).await;
        }
        Command::SshConfig(args) => {
            ssh::config(&coordinator, &settings.gateway, &args, streams).await?;
        }
        Command::Types(args) => lease::types(&coordinator, &args, streams).await?,
        Command::Wait(args) => return jobs::wait(&coordinator, &args, streams).await,
    }
    streams.flush()?;
    Ok(Exit::OK)
}

impl Command {
    /// The exit code for failures of our own, where the command's exit code otherwise belongs to the remote command.
    fn own_failure(&self) -> Option<Exit> {
        matches!(
            self,
            Self::Attach(_) | Self::Run(_) | Self::Ssh(_) | Self::Wait(_)
        )
        .then_some(Exit::NOT_THE_COMMAND)
    }
}
