//! Starting a shell or a command.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::sync::Arc;

use tokio::process::{Child, Command};

use super::input::Input;
use super::output::Reader;
use super::platform::{self, Terminal, TerminalMaster};
use super::settings::LocalSettings;

/// What a client wants to run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Program {
    /// A command, which the shell interprets.
    Command(OsString),
    /// A login shell.
    Shell,
}

/// A program that runs, and the ends of its streams.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) child: Child,
    pub(super) input: Input,
    pub(super) stdout: Reader,
    /// Absent on a terminal, where there is one output.
    pub(super) stderr: Option<Reader>,
    /// The terminal it runs on, where it has one.
    pub(super) terminal: Option<Arc<TerminalMaster>>,
}

/// Starts `program` with the settings' environment and then `env`, on `terminal` or on pipes.
pub(super) fn launch(
    settings: &LocalSettings,
    env: &[(String, String)],
    terminal: Option<&Terminal>,
    program: Program,
) -> io::Result<Launched> {
    let shell = settings.shell();
    let mut command = Command::new(&shell);
    match program {
        Program::Command(line) => command.arg("-c").arg(line),
        Program::Shell => command.arg0(platform::login_name(&shell)),
    };
    command
        .current_dir(&settings.work_dir)
        .env_clear()
        .envs(settings.env.iter().map(|(name, value)| (name, value)))
        .env("SHELL", &shell)
        .envs(env.iter().map(|(name, value)| (name, value)));
    match terminal {
        Some(terminal) => on_terminal(command, terminal),
        None => on_pipes(command),
    }
}

fn on_terminal(mut command: Command, terminal: &Terminal) -> io::Result<Launched> {
    command
        .env("SSH_TTY", terminal.name())
        .stdin(terminal.slave()?)
        .stdout(terminal.slave()?)
        .stderr(terminal.slave()?);
    platform::lead_session(&mut command, true);
    let child = command.spawn()?;
    let master = terminal.master();
    Ok(Launched {
        child,
        input: Input::Terminal(Arc::clone(&master)),
        stdout: Reader::Terminal(Arc::clone(&master)),
        stderr: None,
        terminal: Some(master),
    })
}

fn on_pipes(mut command: Command) -> io::Result<Launched> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    platform::lead_session(&mut command, false);
    let mut child = command.spawn()?;
    let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = streams else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    Ok(Launched {
        child,
        input: Input::Pipe(stdin),
        stdout: Reader::Stdout(stdout),
        stderr: Some(Reader::Stderr(stderr)),
        terminal: None,
    })
}
