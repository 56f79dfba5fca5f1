//! `run`.

use std::time::Duration;

use anyhow::Context;
use buildlet_proto::client::{Client, Connect};
use buildlet_proto::coordinator::CoordinatorClient;
use buildlet_proto::exec::ExecLevel;
use buildlet_proto::jobs::{JobCommand, JobRequest, JobStdin, OutputRequest};
use buildlet_proto::{ApiError, Buildlet, ErrorStatus, ExecRequest, ProcessState, RelPath};
use tokio::io::AsyncReadExt;

use crate::cli::Run;
use crate::exit::{Exit, Usage};
use crate::instance;
use crate::interrupt::OnInterrupt;
use crate::jobs;
use crate::streams::Streams;

pub(crate) async fn run<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: Run,
    streams: &mut Streams<'_>,
    on_interrupt: &OnInterrupt,
) -> anyhow::Result<Exit> {
    let request = request(&args)?;
    let (instance, buildlet) = instance::find(coordinator, &args.target.instance).await?;
    let running = || format!("running {} on {}", args.command[0], instance.name);
    // What `--debug` prints, only /exec does.
    if !args.debug {
        let input = if args.no_stdin || args.detach {
            None
        } else {
            jobs::input(streams)
        };
        let mut job = as_job(&request);
        if input.is_some() {
            job.stdin = JobStdin::Pipe;
        }
        let key = jobs::key();
        // The command may run before its id is known here.
        on_interrupt.plan(jobs::kill_started(
            buildlet.clone(),
            job.clone(),
            key.clone(),
        ));
        let started = jobs::start(&buildlet, &job, &key).await;
        on_interrupt.forget();
        if let Some(job) = started.with_context(running)? {
            if args.detach {
                streams.write(format!("{}\n", job.id).as_bytes())?;
                streams.flush()?;
                return Ok(Exit::OK);
            }
            on_interrupt.plan(jobs::kill_whole(buildlet.clone(), job.id));
            let from = OutputRequest::following(0, 0);
            let ended = jobs::follow(&buildlet, job.id, from, streams, input).await;
            if let Err(error) = &ended
                && error.downcast_ref().is_some_and(jobs::may_pass)
            {
                streams.warn(format_args!(
                    "the command may still run; `gomote attach {} {}` goes on from here",
                    instance.name, job.id
                ));
            }
            return ended
                .with_context(running)
                .inspect(|_| on_interrupt.forget());
        }
    }
    if args.detach {
        return Err(Usage(format!("--detach: {} knows of no jobs", instance.name)).into());
    }
    let mut execution = buildlet.exec(request).await.with_context(running)?;
    let mut chunk = vec![0; CHUNK];
    let state = loop {
        match execution.output.read(&mut chunk).await {
            Ok(0) => break execution.state.await,
            Ok(count) => {
                streams.write(&chunk[..count])?;
                streams.flush()?;
            }
            Err(error) => break Err(ApiError::bad_gateway(error.to_string())),
        }
    };
    match state {
        Ok(state) => Ok(exit(&state, streams)),
        Err(error) => {
            streams.warn(whose_fault(&buildlet).await);
            Err(error).with_context(running)
        }
    }
}

/// Finds out which part of the way is broken, for a command that was cut in the middle: what is left of the way tells.
async fn whose_fault<C: Connect>(buildlet: &Client<C>) -> String {
    match tokio::time::timeout(DIAGNOSIS, buildlet.work_dir()).await {
        Ok(Ok(_)) => {
            "the connection was cut; the coordinator and the machine answer again, and the command was killed"
                .to_owned()
        }
        Ok(Err(error)) if error.status() == ErrorStatus::BAD_GATEWAY => {
            format!("the machine is lost, or the coordinator: {error}")
        }
        Ok(Err(error)) => format!("the lease or the coordinator: {error}"),
        Err(_) => "neither the coordinator nor the machine answers".to_owned(),
    }
}

/// The same command as a job, which always has the work directory for its default.
fn as_job(request: &ExecRequest) -> JobRequest {
    let argv = std::iter::once(&request.command).chain(&request.args);
    let mut job = JobRequest::argv(argv.cloned());
    job.cwd.clone_from(&request.dir);
    if request.dir.is_none() && request.level == ExecLevel::WorkDir {
        let beside = request.command.rsplit_once('/').map(|(dir, _)| dir);
        job.cwd = beside.map(str::to_owned);
    }
    if request.level == ExecLevel::WorkDir && !request.command.contains('/') {
        // A bare name would be looked up in PATH.
        let mut argv = vec![format!("./{}", request.command)];
        argv.extend(request.args.iter().cloned());
        job.command = JobCommand::Argv(argv);
    }
    job.env.clone_from(&request.env);
    job.path.clone_from(&request.path);
    job
}

fn request(args: &Run) -> Result<ExecRequest, Usage> {
    let (command, arguments) = args
        .command
        .split_first()
        .ok_or_else(|| Usage("there is no command".to_owned()))?;
    let mut request = if args.system || command.starts_with('/') || !command.contains('/') {
        ExecRequest::system(command)
    } else {
        let path = RelPath::new(command)
            .map_err(|error| Usage(format!("command {command:?}: {error}")))?;
        ExecRequest::new(path.as_str())
    };
    if let Some(bad) = args
        .env
        .iter()
        .find(|pair| !pair.contains('=') || pair.starts_with('='))
    {
        return Err(Usage(format!("-e wants NAME=VALUE; got {bad:?}")));
    }
    request.args = arguments.to_vec();
    request.env.clone_from(&args.env);
    request.dir.clone_from(&args.dir);
    request.debug = args.debug;
    request.path = match args.path.as_slice() {
        [] => None,
        [only] if only == "EMPTY" => Some(Vec::new()),
        elements => Some(elements.to_vec()),
    };
    Ok(request)
}

pub(crate) fn exit(state: &ProcessState, streams: &mut Streams<'_>) -> Exit {
    if let Some(code) = state.exit_code() {
        return Exit::of_command(code);
    }
    let Some(signal) = state.signal() else {
        streams.warn(format_args!(
            "the command could not be started: {}",
            state.as_str().escape_debug()
        ));
        return Exit::NOT_STARTED;
    };
    streams.warn(format_args!(
        "the command was ended by a signal: {}",
        signal.escape_debug()
    ));
    let description = signal.trim_end_matches(" (core dumped)");
    SIGNALS
        .iter()
        .find(|(_, name)| *name == description)
        .map_or(Exit::NOT_THE_COMMAND, |(number, _)| {
            Exit::of_signal(*number)
        })
}

/// How long an explanation may keep the user waiting.
const DIAGNOSIS: Duration = Duration::from_secs(5);
/// As much as a pipe holds.
const CHUNK: usize = 64 * 1024;
/// The signals that end programs, with their numbers and descriptions in Go's `syscall` package for Linux.
const SIGNALS: [(u8, &str); 15] = [
    (1, "hangup"),
    (2, "interrupt"),
    (3, "quit"),
    (4, "illegal instruction"),
    (5, "trace/breakpoint trap"),
    (6, "aborted"),
    (7, "bus error"),
    (8, "floating point exception"),
    (9, "killed"),
    (10, "user defined signal 1"),
    (11, "segmentation fault"),
    (12, "user defined signal 2"),
    (13, "broken pipe"),
    (14, "alarm clock"),
    (15, "terminated"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Target;

    fn args(command: &[&str]) -> Run {
        Run {
            system: false,
            env: Vec::new(),
            path: Vec::new(),
            dir: None,
            debug: false,
            detach: false,
            no_stdin: false,
            target: Target {
                instance: "i".to_owned(),
            },
            command: command.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_command_is_looked_up_as_shells_do() {
        let level =
            |command| request(&args(&[command])).map(|request| (request.level, request.command));
        assert_eq!(
            level("make").unwrap(),
            (ExecLevel::System, "make".to_owned())
        );
        assert_eq!(
            level("/bin/ls").unwrap(),
            (ExecLevel::System, "/bin/ls".to_owned())
        );
        assert_eq!(
            level("./configure").unwrap(),
            (ExecLevel::WorkDir, "configure".to_owned())
        );
        assert_eq!(
            level("go/src/make.bash").unwrap(),
            (ExecLevel::WorkDir, "go/src/make.bash".to_owned())
        );
        assert!(level("../escape").is_err());
    }

    #[test]
    fn system_overrides_the_slash() {
        let run = Run {
            system: true,
            ..args(&["bin/tool"])
        };
        assert_eq!(request(&run).unwrap().level, ExecLevel::System);
    }

    #[test]
    fn a_job_finds_the_same_program_in_the_same_place() {
        let job = |command| {
            let job = as_job(&request(&args(&[command])).unwrap());
            (job.command, job.cwd)
        };
        let argv = |program: &str| JobCommand::Argv(vec![program.to_owned()]);
        assert_eq!(job("make"), (argv("make"), None));
        assert_eq!(job("./configure"), (argv("./configure"), None));
        let dir = Some("go/src".to_owned());
        assert_eq!(job("go/src/make.bash"), (argv("go/src/make.bash"), dir));
    }

    #[test]
    fn an_empty_path_is_asked_for_by_name() {
        let path = |elements: &[&str]| {
            let path = elements.iter().map(ToString::to_string).collect();
            request(&Run {
                path,
                ..args(&["x"])
            })
            .unwrap()
            .path
        };
        assert_eq!(path(&[]), None);
        assert_eq!(path(&["EMPTY"]), Some(Vec::new()));
        assert_eq!(path(&["$PATH", "$WORKDIR/bin"]).unwrap().len(), 2);
    }

    #[test]
    fn a_variable_without_a_value_is_refused() {
        for pair in ["A", "=b", ""] {
            let run = Run {
                env: vec![pair.to_owned()],
                ..args(&["x"])
            };
            assert!(request(&run).is_err(), "{pair:?}");
        }
    }

    #[test]
    fn the_remote_commands_end_is_ours() {
        let ends = [
            ("ok", 0),
            ("exit status 42", 42),
            ("signal: killed", 137),
            ("signal: segmentation fault (core dumped)", 139),
            ("signal: nonesuch", 255),
            ("exec: \"x\": executable file not found in $PATH", 127),
        ];
        for (trailer, want) in ends {
            let (mut output, mut errors) = (Vec::new(), Vec::new());
            let mut streams = Streams {
                input: Box::pin(tokio::io::empty()),
                input_is_terminal: false,
                output: &mut output,
                output_is_terminal: false,
                errors: &mut errors,
                errors_is_terminal: false,
            };
            assert_eq!(
                exit(&ProcessState::from_trailer(trailer), &mut streams).code(),
                want,
                "{trailer}"
            );
        }
    }
}
