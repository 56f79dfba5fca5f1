//! What can be asked about jobs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Signal;

/// A command to run as a job. As JSON, an object whose unknown keys are refused.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Wire", into = "Wire")]
#[non_exhaustive]
pub struct JobRequest {
    /// What to run.
    pub command: JobCommand,
    /// Where to run: relative to the work directory, or absolute. Without one, in the work directory.
    pub cwd: Option<String>,
    /// `NAME=value` pairs, added to the environment of the machine; the last one of a name wins.
    pub env: Vec<String>,
    /// The new `PATH`, as in [`ExecRequest::path`](crate::ExecRequest::path).
    pub path: Option<Vec<String>>,
    /// Whether there is something to read.
    pub stdin: JobStdin,
    /// The terminal to run on, if any. Its output is all standard output.
    pub pty: Option<Pty>,
    /// How long the job may take before it is ended; without one, as long as it likes.
    pub time_limit: Option<Duration>,
    /// How long after `signal`, at the time limit, the whole tree is killed; without one, ten seconds.
    pub grace: Option<Duration>,
    /// What the whole tree gets first at the time limit; without one, `TERM`.
    pub signal: Option<Signal>,
    /// How many bytes of each stream are kept: the first half and the last half of as many; without one, as the machine
    /// is set up.
    pub output_limit: Option<u64>,
}

impl JobRequest {
    /// Runs `command` in the work directory, with nothing to read and no limits but the machine's.
    pub fn new(command: JobCommand) -> Self {
        Self {
            command,
            cwd: None,
            env: Vec::new(),
            path: None,
            stdin: JobStdin::None,
            pty: None,
            time_limit: None,
            grace: None,
            signal: None,
            output_limit: None,
        }
    }

    /// Runs a program with its arguments. A name without a slash is found in the machine's `PATH`; one with a slash is
    /// absolute, or a file below the work directory.
    pub fn argv<T: Into<String>>(argv: impl IntoIterator<Item = T>) -> Self {
        Self::new(JobCommand::Argv(argv.into_iter().map(Into::into).collect()))
    }

    /// Runs a script with the machine's shell.
    pub fn shell(script: impl Into<String>) -> Self {
        Self::new(JobCommand::Shell(script.into()))
    }
}

/// A program with its arguments, or a script.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum JobCommand {
    /// The program and its arguments; not empty.
    Argv(Vec<String>),
    /// A script for `/bin/sh -c`.
    Shell(String),
}

/// What a job reads.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum JobStdin {
    /// Nothing: an end of file at once. On a terminal, nothing either.
    #[default]
    None,
    /// What is sent to it, until that is closed.
    Pipe,
}

/// A terminal to run on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Pty {
    /// The kind of terminal, for `TERM`.
    #[serde(default = "default_term")]
    pub term: String,
    /// The height in characters.
    #[serde(default = "default_rows")]
    pub rows: u16,
    /// The width in characters.
    #[serde(default = "default_columns")]
    pub columns: u16,
}

impl Pty {
    /// A terminal of the kind `term` and of a size.
    pub fn new(term: impl Into<String>, size: TerminalSize) -> Self {
        Self {
            term: term.into(),
            rows: size.rows,
            columns: size.columns,
        }
    }
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a size has two sides")]
pub struct TerminalSize {
    /// The height.
    pub rows: u16,
    /// The width.
    pub columns: u16,
}

/// What of a job's output to read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct OutputRequest {
    /// The first byte of standard output that is wanted.
    pub stdout: u64,
    /// The first byte of standard error that is wanted.
    pub stderr: u64,
    /// Whether to wait for what is not there yet, to the end of the job.
    pub follow: bool,
}

impl OutputRequest {
    /// Everything that is there, from the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// From these bytes on, to the end of the job.
    pub fn following(stdout: u64, stderr: u64) -> Self {
        Self {
            stdout,
            stderr,
            follow: true,
        }
    }
}

/// Where in a job's standard input some bytes belong.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct StdinRequest {
    /// The place of the first byte; without one, behind what was taken so far. What the job has already been given is
    /// skipped, so that a request that was cut is safely made again.
    pub offset: Option<u64>,
    /// Whether standard input ends behind these bytes.
    pub close: bool,
}

impl StdinRequest {
    /// Bytes that belong at `offset`.
    pub fn at(offset: u64) -> Self {
        Self {
            offset: Some(offset),
            close: false,
        }
    }

    /// The same, and nothing behind them.
    #[must_use]
    pub fn and_close(mut self) -> Self {
        self.close = true;
        self
    }
}

/// How much of its standard input a job was given.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StdinTaken {
    /// The bytes from the first one on.
    pub taken: u64,
}

impl StdinTaken {
    /// `taken` bytes.
    pub fn new(taken: u64) -> Self {
        Self { taken }
    }
}

/// A signal for a job.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SignalRequest {
    /// Which.
    pub signal: Signal,
    /// For whom.
    pub target: SignalTarget,
}

impl SignalRequest {
    /// `signal` for `target`.
    pub fn new(signal: Signal, target: SignalTarget) -> Self {
        Self { signal, target }
    }
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a part or the whole")]
pub enum SignalTarget {
    /// The process group of the command or, on a terminal, the one in the foreground.
    Group,
    /// Every process of the job, also those that have left its group and its session. With `KILL`, until none is left.
    Tree,
}

/// The JSON.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argv: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shell: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cwd: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "is_default")]
    stdin: JobStdin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pty: Option<Pty>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_limit_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grace_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<Signal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_limit: Option<u64>,
}

impl TryFrom<Wire> for JobRequest {
    type Error = BadRequest;

    fn try_from(wire: Wire) -> Result<Self, BadRequest> {
        let command = match (wire.argv, wire.shell) {
            (Some(argv), None) if argv.first().is_some_and(|name| !name.is_empty()) => {
                JobCommand::Argv(argv)
            }
            (None, Some(script)) => JobCommand::Shell(script),
            _ => return Err(BadRequest::Command),
        };
        let words: &[String] = match &command {
            JobCommand::Argv(argv) => argv,
            JobCommand::Shell(script) => std::slice::from_ref(script),
        };
        let term = wire.pty.as_ref().map(|pty| &pty.term);
        let text = words.iter().chain(wire.cwd.as_ref()).chain(term);
        if text
            .chain(wire.path.iter().flatten())
            .any(|text| text.contains('\0'))
        {
            return Err(BadRequest::Nul);
        }
        Ok(Self {
            command,
            cwd: wire.cwd,
            env: wire.env,
            path: wire.path,
            stdin: wire.stdin,
            pty: wire.pty,
            time_limit: wire.time_limit_ms.map(Duration::from_millis),
            grace: wire.grace_ms.map(Duration::from_millis),
            signal: wire.signal,
            output_limit: wire.output_limit,
        })
    }
}

impl From<JobRequest> for Wire {
    fn from(request: JobRequest) -> Self {
        let (argv, shell) = match request.command {
            JobCommand::Argv(argv) => (Some(argv), None),
            JobCommand::Shell(script) => (None, Some(script)),
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            argv,
            shell,
            cwd: request.cwd,
            env: request.env,
            path: request.path,
            stdin: request.stdin,
            pty: request.pty,
            time_limit_ms: request.time_limit.map(millis),
            grace_ms: request.grace.map(millis),
            signal: request.signal,
            output_limit: request.output_limit,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum BadRequest {
    #[error("one of \"argv\", which names a program, and \"shell\" is needed")]
    Command,
    #[error("no text can have a NUL")]
    Nul,
}

fn is_default(stdin: &JobStdin) -> bool {
    *stdin == JobStdin::None
}

fn default_term() -> String {
    "xterm".to_owned()
}

fn default_rows() -> u16 {
    24
}

fn default_columns() -> u16 {
    80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        serde_json::from_str::<JobRequest>(json)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_shortest_requests_are_written_short() {
        let json = |request: &JobRequest| serde_json::to_string(request).unwrap();
        assert_eq!(
            json(&JobRequest::argv(["make", "test"])),
            r#"{"argv":["make","test"]}"#
        );
        assert_eq!(
            json(&JobRequest::shell("make test")),
            r#"{"shell":"make test"}"#
        );
    }

    #[test]
    fn everything_survives_the_wire() {
        let mut request = JobRequest::argv(["sh"]);
        request.cwd = Some("src".to_owned());
        request.env = vec!["A=b".to_owned()];
        request.path = Some(Vec::new());
        request.stdin = JobStdin::Pipe;
        let size = TerminalSize {
            rows: 50,
            columns: 132,
        };
        request.pty = Some(Pty::new("vt100", size));
        request.time_limit = Some(Duration::from_millis(1500));
        request.grace = Some(Duration::ZERO);
        request.signal = Some(Signal::Quit);
        request.output_limit = Some(1 << 20);
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(
            json,
            r#"{"argv":["sh"],"cwd":"src","env":["A=b"],"path":[],"stdin":"pipe","pty":{"term":"vt100","rows":50,"columns":132},"time_limit_ms":1500,"grace_ms":0,"signal":"QUIT","output_limit":1048576}"#
        );
        assert_eq!(serde_json::from_str::<JobRequest>(&json).unwrap(), request);
    }

    #[test]
    fn a_terminal_has_defaults() {
        let request: JobRequest = serde_json::from_str(r#"{"shell":"top","pty":{}}"#).unwrap();
        let size = TerminalSize {
            rows: 24,
            columns: 80,
        };
        assert_eq!(request.pty, Some(Pty::new("xterm", size)));
    }

    #[test]
    fn what_is_unknown_or_impossible_is_refused() {
        for (json, why) in [
            (r#"{"shell":"x","timeout":1}"#, "unknown field `timeout`"),
            (r#"{"shell":"x","pty":{"size":1}}"#, "unknown field `size`"),
            (r#"{"shell":"x","signal":"FOO"}"#, "no such signal"),
            (r#"{"shell":"x","stdin":"tty"}"#, "unknown variant `tty`"),
            (r#"{"shell":"x","time_limit_ms":-1}"#, "invalid value"),
            (r#"{"shell":"x","argv":["x"]}"#, "is needed"),
            (r#"{"argv":[]}"#, "is needed"),
            (r#"{"argv":[""]}"#, "is needed"),
            ("{}", "is needed"),
            (r#"{"argv":["a\u0000b"]}"#, "NUL"),
            (r#"{"shell":"a\u0000b"}"#, "NUL"),
            ("[]", "is needed"),
            ("", "EOF"),
        ] {
            let text = error(json);
            assert!(text.contains(why), "{json}: {text}");
        }
    }
}
