//! How a job begins.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use buildlet_proto::jobs::{
    self as proto, JobAbout, JobCommand, JobId, JobRequest, JobStdin, Pty, Signal,
};
use buildlet_proto::{ApiError, ExecRequest, RelPath};
use sshbridge::backend::PtyRequest;
use sshbridge::machine::{Terminal, TerminalMaster};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::driver::{self, Launch, TimeLimit};
use super::job::{Command, Job, Parts, shortened};
use super::limits::MIN_OUTPUT;
use super::output::Source;
use super::stdin::Stdin;
use super::store::{Index, Writer};
use super::table::{Key, Table};
use super::{Jobs, Shared, window};
use crate::exec::{self, NotStarted, Prepared};
use crate::platform::number_of;
use crate::supervisor::Spec;

impl Jobs {
    /// Starts a job, or finds the one that was started with this key.
    ///
    /// It is started also where the future is dropped.
    pub(crate) async fn start(
        &self,
        request: JobRequest,
        key: Option<String>,
    ) -> Result<proto::Job, ApiError> {
        let key = key.map(|name| Key {
            name,
            request: hash(&request),
        });
        let job = self.begin(&request, key)?;
        job.started().await;
        Ok(job.tell())
    }

    fn begin(&self, request: &JobRequest, key: Option<Key>) -> Result<Arc<Job>, ApiError> {
        let limit = self.output_limit(request)?;
        let prepared = exec::prepare(&self.shared.work_dir, &as_exec(request)?)?;
        let prepared = prepared.and_then(|mut prepared| {
            self.mark(&mut prepared.spec);
            open(prepared, request)
        });
        let mut table = self.shared.table();
        if let Some(key) = &key
            && let Some(job) = table.with_key(key)?
        {
            return Ok(job);
        }
        let dir = match &prepared {
            Ok(opened) => opened.spec.dir.clone(),
            Err(_) => self.shared.work_dir.clone(),
        };
        let mut about = JobAbout::new(
            shortened(&request.command),
            dir.to_string_lossy(),
            SystemTime::now(),
        );
        about.pty = request.pty.is_some();
        let parts = self.parts(&table, about, key, limit)?;
        let (opened, why) = match prepared {
            Ok(opened) => (Some(opened), String::new()),
            Err(why) => (None, why),
        };
        let Some(opened) = opened else {
            let (job, _) = add(&mut table, parts);
            drop(table);
            job.not_started(&why);
            self.shared.finished(&job);
            return Ok(job);
        };
        let parts = Parts {
            terminal: opened.terminal,
            stdin: opened.stdin,
            ..parts
        };
        let indexes = [parts.stdout.clone(), parts.stderr.clone()];
        let (job, commands) = add(&mut table, parts);
        drop(table);
        let outputs = opened.sources.into_iter().zip(indexes);
        let launch = Launch {
            supervisor: self.shared.settings.supervisor.clone(),
            spec: opened.spec,
            stdio: opened.stdio,
            outputs: outputs
                .map(|(source, index)| (source, Writer::new(index)))
                .collect(),
            time_limit: request.time_limit.map(|limit| TimeLimit {
                limit,
                signal: number_of(request.signal.unwrap_or(Signal::Term)),
                grace: request.grace.unwrap_or(GRACE),
            }),
        };
        self.drive(&job, launch, commands);
        Ok(job)
    }

    /// Adds the variable that a command is known again by.
    pub(super) fn mark(&self, spec: &mut Spec) {
        if let Some((name, value)) = &self.shared.settings.mark {
            spec.env.retain(|(other, _)| other != name);
            spec.env.push(((*name).into(), value.into()));
        }
    }

    /// What every job has.
    pub(super) fn parts(
        &self,
        table: &Table,
        about: JobAbout,
        key: Option<Key>,
        limit: u64,
    ) -> Result<Parts, ApiError> {
        let slot = table.slot()?;
        let id = loop {
            let id = JobId::from_bits(rand::random());
            if !table.has(id) {
                break id;
            }
        };
        let dir = &self.shared.settings.output_dir;
        Ok(Parts {
            id,
            key,
            about,
            terminal: None,
            stdin: None,
            stdout: Index::new(dir.join(format!("{id}.out")), limit),
            stderr: Index::new(dir.join(format!("{id}.err")), limit),
            slot,
        })
    }

    /// Gives a job its driver.
    pub(super) fn drive(&self, job: &Arc<Job>, launch: Launch, commands: mpsc::Receiver<Command>) {
        let (job, shared) = (job.clone(), Arc::downgrade(&self.shared));
        let mut drivers = self.shared.drivers();
        while drivers.try_join_next().is_some() {}
        drivers.spawn(async move {
            let _abandoned = AbandonOnDrop(job.clone());
            driver::drive(job.clone(), launch, commands).await;
            if let Some(shared) = shared.upgrade() {
                Shared::finished(&shared, &job);
            }
        });
    }

    fn output_limit(&self, request: &JobRequest) -> Result<u64, ApiError> {
        let limits = &self.shared.settings.limits;
        let limit = request.output_limit.unwrap_or(limits.job_output);
        let allowed = MIN_OUTPUT.min(limits.job_output)..=limits.max_output();
        if allowed.contains(&limit) {
            return Ok(limit);
        }
        Err(ApiError::bad_request(format!(
            "bad 'output_limit': this machine keeps from {} to {} bytes of a stream",
            allowed.start(),
            allowed.end()
        )))
    }
}

/// Tells everybody who waits for a job that its driver is gone, in whichever way.
struct AbandonOnDrop(Arc<Job>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// Adds a job to the table.
pub(super) fn add(table: &mut Table, parts: Parts) -> (Arc<Job>, mpsc::Receiver<Command>) {
    let mut receiver = None;
    let job = table.add(|number| {
        let (job, commands) = Job::new(number, parts);
        receiver = Some(commands);
        job
    });
    (job, receiver.expect("the job was made"))
}

/// The command of a job in the terms of `/exec`, whose rules for programs, directories and environments it follows.
fn as_exec(request: &JobRequest) -> Result<ExecRequest, ApiError> {
    let (program, args) = match &request.command {
        JobCommand::Argv(argv) => match argv.split_first() {
            Some((program, args)) => (program.clone(), args.to_vec()),
            None => return Err(ApiError::bad_request("bad 'argv': it names no program")),
        },
        JobCommand::Shell(script) => (SHELL.to_owned(), vec!["-c".to_owned(), script.clone()]),
        _ => return Err(ApiError::bad_request("a command of an unknown kind")),
    };
    let stays = |path: &str| path.starts_with('/') || RelPath::new(path).is_ok();
    if !stays(&program) {
        return Err(ApiError::bad_request(
            "bad 'argv': the program must be absolute, or stay below the work directory",
        ));
    }
    let cwd = request.cwd.as_deref().filter(|cwd| !cwd.is_empty());
    if cwd.is_some_and(|cwd| !stays(cwd)) {
        return Err(ApiError::bad_request(
            "bad 'cwd': it must be absolute, or stay below the work directory",
        ));
    }
    let mut exec = ExecRequest::system(program);
    exec.args = args;
    exec.dir = cwd.map(str::to_owned);
    if let Some(pty) = &request.pty {
        exec.env.push(format!("TERM={}", pty.term));
    }
    exec.env.extend(request.env.iter().cloned());
    exec.path.clone_from(&request.path);
    Ok(exec)
}

/// A command with everything that it reads and writes.
struct Opened {
    spec: Spec,
    stdio: [OwnedFd; 3],
    terminal: Option<Arc<TerminalMaster>>,
    stdin: Option<Stdin>,
    /// Standard output and, without a terminal, standard error.
    sources: Vec<Source>,
}

fn open(prepared: Prepared, request: &JobRequest) -> Result<Opened, NotStarted> {
    let opened = match &request.pty {
        Some(pty) => open_terminal(prepared.spec, pty, request.stdin),
        None => open_pipes(prepared.spec, request.stdin),
    };
    opened.map_err(|error| format!("the machine cannot make the job's pipes: {error}"))
}

fn open_terminal(mut spec: Spec, pty: &Pty, stdin: JobStdin) -> io::Result<Opened> {
    let size = window(pty.rows, pty.columns);
    let terminal = Terminal::open(&PtyRequest::new(pty.term.as_str(), size))?;
    spec.on_terminal = true;
    let master = terminal.master();
    Ok(Opened {
        spec,
        stdio: [terminal.slave()?, terminal.slave()?, terminal.slave()?],
        stdin: (stdin == JobStdin::Pipe).then(|| Stdin::terminal(master.clone())),
        sources: vec![Source::Terminal(master.clone())],
        terminal: Some(master),
    })
}

fn open_pipes(spec: Spec, stdin: JobStdin) -> io::Result<Opened> {
    let (stdout, its_stdout) = io::pipe()?;
    let (stderr, its_stderr) = io::pipe()?;
    let (its_stdin, stdin) = if stdin == JobStdin::Pipe {
        let (its_stdin, stdin) = io::pipe()?;
        let stdin = pipe::Sender::from_owned_fd(stdin.into())?;
        (its_stdin.into(), Some(Stdin::pipe(stdin)))
    } else {
        (nothing_to_read()?, None)
    };
    Ok(Opened {
        spec,
        stdio: [its_stdin, its_stdout.into(), its_stderr.into()],
        terminal: None,
        stdin,
        sources: vec![Source::pipe(stdout.into())?, Source::pipe(stderr.into())?],
    })
}

pub(super) fn nothing_to_read() -> io::Result<OwnedFd> {
    Ok(File::open("/dev/null")?.into())
}

fn hash(request: &JobRequest) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Two requests that cannot be written are as good as one.
    serde_json::to_vec(request)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

const SHELL: &str = "/bin/sh";
/// Long enough to write a report or remove a file, and as Docker and Kubernetes users are used to.
const GRACE: Duration = Duration::from_secs(10);
