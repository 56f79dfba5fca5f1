//! The backend of local processes.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::agent::AgentSocket;
use super::forward::{self, Listeners, Offers};
use super::input::{Input, LocalSink};
use super::launch::{Program, launch};
use super::output::{LocalSource, Output, Started};
use super::platform::{self, Signal, Terminal, TerminalMaster};
use super::process::Process;
use super::settings::LocalSettings;
use super::sftp;
use crate::backend::{
    Backend, BackendChannel, BackendConn, BackendError, BackendStream, ChannelControl,
    ChannelRequest, Destination, IncomingSource, ListenAddress, PtyRequest,
};

/// Runs sessions on this machine.
///
/// Each command leads a session and a process group of its own. When its channel or its connection is dropped, the group
/// (and on a terminal the group in the foreground) is told with `SIGHUP` and killed with `SIGKILL` after
/// [`LocalSettings::grace`]; when the backend and all its connections are dropped, at once. When a command exits by
/// itself, what it has written is delivered, then its status, then the end of output; what it left in the background
/// lives on, as with sshd, but holds the channel no longer than [`LocalSettings::hold`].
///
/// The subsystem `sftp` is [`LocalFiles`](crate::sftp::LocalFiles) from the work directory on; there is no other. Ports and
/// Unix sockets are forwarded in both directions, and so is an agent, whose socket is gone when its session is.
#[derive(Clone)]
pub struct LocalBackend {
    shared: Arc<Shared>,
}

impl LocalBackend {
    /// Runs sessions as `settings` say.
    pub fn new(settings: LocalSettings) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings,
                processes: Mutex::new(JoinSet::new()),
            }),
        }
    }
}

impl fmt::Debug for LocalBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBackend")
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for LocalBackend {
    async fn connect(&self) -> Result<Box<dyn BackendConn>, BackendError> {
        let closed = CancellationToken::new();
        let work_dir = self.shared.settings.work_dir.clone();
        Ok(Box::new(LocalConn {
            shared: Arc::clone(&self.shared),
            listeners: Listeners::new(work_dir, closed.child_token()),
            _open: closed.clone().drop_guard(),
            closed,
        }))
    }
}

/// What all sessions of a backend have in common.
struct Shared {
    settings: LocalSettings,
    /// The tasks that watch over the programs; dropping them kills what still runs.
    processes: Mutex<JoinSet<()>>,
}

/// A client's sessions.
struct LocalConn {
    shared: Arc<Shared>,
    listeners: Listeners,
    closed: CancellationToken,
    /// Closes every channel when the connection is dropped.
    _open: DropGuard,
}

#[async_trait]
impl BackendConn for LocalConn {
    async fn open_session(&self) -> Result<BackendChannel, BackendError> {
        let closed = self.closed.child_token();
        let open = Arc::new(closed.clone().drop_guard());
        let (input, awaited_input) = oneshot::channel();
        let (started, awaited_start) = oneshot::channel();
        let control = LocalControl {
            shared: Arc::clone(&self.shared),
            session: Mutex::new(Session::Preparing(Preparation::new(input, started))),
            offers: self.listeners.offers(),
            agent: Mutex::new(None),
            closed: closed.clone(),
            _open: Arc::clone(&open),
        };
        Ok(BackendChannel {
            sink: Box::new(LocalSink::new(
                awaited_input,
                closed.clone(),
                Arc::clone(&open),
            )),
            source: Box::new(LocalSource::new(awaited_start, closed, open)),
            control: Box::new(control),
        })
    }

    async fn open_stream(&self, destination: &Destination) -> Result<BackendStream, BackendError> {
        let work_dir = &self.shared.settings.work_dir;
        forward::connect(destination, work_dir, self.closed.child_token()).await
    }

    async fn listen(&self, address: &ListenAddress) -> Result<u16, BackendError> {
        self.listeners.listen(address).await
    }

    async fn cancel(&self, address: &ListenAddress) -> Result<(), BackendError> {
        self.listeners.cancel(address)
    }

    fn incoming(&self) -> Option<Box<dyn IncomingSource>> {
        self.listeners.incoming()
    }
}

/// The requests of a local session.
struct LocalControl {
    shared: Arc<Shared>,
    session: Mutex<Session>,
    offers: Offers,
    /// Where the session finds its user's agent, for as long as it lasts.
    agent: Mutex<Option<AgentSocket>>,
    closed: CancellationToken,
    /// Closes the channel when its last part is dropped.
    _open: Arc<DropGuard>,
}

impl LocalControl {
    /// Starts the session's program. One that does not start is answered as started: the reason is its error output, so
    /// that the user reads it.
    fn start(&self, program: Program) -> Result<(), BackendError> {
        let mut session = lock(&self.session);
        let Preparation {
            env,
            terminal,
            input,
            started,
            ..
        } = session.take_preparation().ok_or(BackendError::Refused)?;
        let settings = &self.shared.settings;
        // Who waits for input or output may be gone: then the channel is closing.
        match launch(settings, &env, terminal.as_ref(), program) {
            Ok(launched) => {
                let (exited, exit) = oneshot::channel();
                let (signals, pending_signals) = mpsc::channel(SIGNALS);
                let output = Output::new(launched.stdout, launched.stderr, exit, settings.hold);
                *session = Session::Running {
                    signals,
                    terminal: launched.terminal.clone(),
                };
                let process = Process::new(launched.child, launched.terminal);
                let closed = self.closed.clone();
                self.watch(process.supervise(pending_signals, closed, exited, settings.grace));
                let _ = input.send(launched.input);
                let _ = started.send(Started::Running(Box::new(output)));
            }
            Err(error) => {
                tracing::warn!(%error, "a command cannot be started");
                let line = cannot_start(settings, &error, terminal.is_some());
                let _ = started.send(Started::Failed(line));
            }
        }
        Ok(())
    }

    /// Starts the SFTP server of this program.
    fn start_sftp(&self) -> Result<(), BackendError> {
        let mut session = lock(&self.session);
        session.preparing()?;
        let started = sftp::start(&self.shared.settings);
        let (subsystem, serving) = started.map_err(|error| {
            tracing::warn!(%error, "the work directory cannot be opened");
            BackendError::Refused
        })?;
        let preparation = session.take_preparation().ok_or(BackendError::Refused)?;
        let (signals, _) = mpsc::channel(SIGNALS);
        *session = Session::Running {
            signals,
            terminal: None,
        };
        let closed = self.closed.clone();
        self.watch(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = serving => {}
            }
        });
        // Who waits for input or output may be gone: then the channel is closing.
        let _ = preparation.input.send(Input::Queue(subsystem.input));
        let _ = preparation.started.send(Started::Served(subsystem.output));
        Ok(())
    }

    /// Gives the session a socket to its user's agent, once.
    fn forward_agent(&self) -> Result<(), BackendError> {
        let mut session = lock(&self.session);
        let preparation = session.preparing()?;
        let mut agent = lock(&self.agent);
        if agent.is_some() {
            return Err(BackendError::Refused);
        }
        let socket = AgentSocket::new(self.offers.clone()).map_err(|error| {
            tracing::warn!(%error, "no socket for a user's agent can be had");
            BackendError::Refused
        })?;
        let path = socket.path().to_str().ok_or(BackendError::Refused)?;
        preparation.set(AUTH_SOCK.to_owned(), path.to_owned())?;
        *agent = Some(socket);
        Ok(())
    }

    /// Keeps a program's task with the backend, and lets go of those that are done.
    fn watch(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut processes = lock(&self.shared.processes);
        while processes.try_join_next().is_some() {}
        processes.spawn(task);
    }
}

#[async_trait]
impl ChannelControl for LocalControl {
    async fn request(&self, request: ChannelRequest) -> Result<(), BackendError> {
        if self.closed.is_cancelled() {
            return Err(BackendError::Closed);
        }
        match request {
            ChannelRequest::Agent => self.forward_agent(),
            ChannelRequest::Env { name, value } => {
                lock(&self.session).preparing()?.set(name, value)
            }
            ChannelRequest::Exec(line) => {
                if line.contains(&0) {
                    return Err(BackendError::Refused);
                }
                self.start(Program::Command(OsString::from_vec(line.into())))
            }
            ChannelRequest::Pty(request) => lock(&self.session).preparing()?.attach(&request),
            ChannelRequest::Shell => self.start(Program::Shell),
            ChannelRequest::Signal(name) => lock(&self.session).signal(&name),
            ChannelRequest::Subsystem(name) if name == SFTP => self.start_sftp(),
            ChannelRequest::Subsystem(_) => Err(BackendError::Unsupported("this subsystem")),
            ChannelRequest::WindowChange(size) => {
                let session = lock(&self.session);
                let terminal = session.terminal().ok_or(BackendError::Refused)?;
                terminal.resize(size).map_err(|_| BackendError::Refused)
            }
        }
    }
}

/// What a session's requests have come to.
enum Session {
    /// Its program did not start.
    Failed,
    Preparing(Preparation),
    Running {
        signals: mpsc::Sender<Signal>,
        terminal: Option<Arc<TerminalMaster>>,
    },
}

impl Session {
    fn preparing(&mut self) -> Result<&mut Preparation, BackendError> {
        match self {
            Self::Preparing(preparation) => Ok(preparation),
            Self::Failed | Self::Running { .. } => Err(BackendError::Refused),
        }
    }

    /// Takes what the program is to be started with, which happens once.
    fn take_preparation(&mut self) -> Option<Preparation> {
        match std::mem::replace(self, Self::Failed) {
            Self::Preparing(preparation) => Some(preparation),
            other @ (Self::Failed | Self::Running { .. }) => {
                *self = other;
                None
            }
        }
    }

    fn signal(&self, name: &str) -> Result<(), BackendError> {
        let Self::Running { signals, .. } = self else {
            return Err(BackendError::Refused);
        };
        let signal = platform::signal_named(name).ok_or(BackendError::Refused)?;
        signals.try_send(signal).map_err(|_| BackendError::Refused)
    }

    fn terminal(&self) -> Option<Arc<TerminalMaster>> {
        match self {
            Self::Failed => None,
            Self::Preparing(preparation) => preparation.terminal.as_ref().map(Terminal::master),
            Self::Running { terminal, .. } => terminal.clone(),
        }
    }
}

/// What a client asked for before it starts its program.
struct Preparation {
    env: Vec<(String, String)>,
    /// The bytes of `env`.
    env_size: usize,
    terminal: Option<Terminal>,
    input: oneshot::Sender<Input>,
    started: oneshot::Sender<Started>,
}

impl Preparation {
    fn new(input: oneshot::Sender<Input>, started: oneshot::Sender<Started>) -> Self {
        Self {
            env: Vec::new(),
            env_size: 0,
            terminal: None,
            input,
            started,
        }
    }

    /// Sets a variable. A name or value that no environment can hold is refused, and so is more than [`ENV_SIZE`].
    fn set(&mut self, name: String, value: String) -> Result<(), BackendError> {
        let unfit = name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
        let size = name.len() + value.len() + ENV_OVERHEAD;
        if unfit || self.env_size + size > ENV_SIZE {
            return Err(BackendError::Refused);
        }
        self.env_size += size;
        self.env.push((name, value));
        Ok(())
    }

    /// Gives the session its terminal, once.
    fn attach(&mut self, request: &PtyRequest) -> Result<(), BackendError> {
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b'=';
        if self.terminal.is_some() || !request.term.bytes().all(fits) {
            return Err(BackendError::Refused);
        }
        if !request.term.is_empty() {
            self.set("TERM".to_owned(), request.term.clone())?;
        }
        let terminal = Terminal::open(request).map_err(|error| {
            tracing::warn!(%error, "no terminal can be had");
            BackendError::Refused
        })?;
        self.terminal = Some(terminal);
        Ok(())
    }
}

/// Says why a program did not start, in a line for the user.
fn cannot_start(settings: &LocalSettings, error: &io::Error, on_terminal: bool) -> Bytes {
    let directory = settings.work_dir.display();
    let end = if on_terminal { "\r\n" } else { "\n" };
    let line = if settings.work_dir.is_dir() {
        let shell = settings.shell();
        format!(
            "this machine cannot start its shell {} in {directory}: {error}; ask its owner to correct the shell{end}",
            shell.display()
        )
    } else {
        format!("this machine has no work directory {directory}; ask its owner to make it{end}")
    };
    Bytes::from(line)
}

/// Locks what is never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many signals can wait to be sent to a program; each is sent as soon as its task runs.
const SIGNALS: usize = 16;

/// How many bytes of environment a client may set, so that it cannot fill the memory: a quarter of what Linux gives to
/// all arguments of a program.
const ENV_SIZE: usize = 32 * 1024;

/// The subsystem that there is.
const SFTP: &str = "sftp";

/// The variable by which programs find an agent.
const AUTH_SOCK: &str = "SSH_AUTH_SOCK";

/// What a variable costs beside its bytes.
const ENV_OVERHEAD: usize = 64;
