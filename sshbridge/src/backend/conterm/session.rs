//! A session on a machine: the task that owns the stream, and the three parts of the channel.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::connect::Connection;
use super::console::{Console, MAX_WAITING, Mode};
use super::error::ContermError;
use super::layer::{Opened, Opener, Sealer};
use super::ninep::server::{FileServer, MAX_UNSENT};
use super::ninep::tree::Node;
use super::refusal;
use super::script::{MAX_COMMAND, Session, is_variable};
use super::{ContermBackend, ContermProtocol};
use crate::backend::ssh::Stream;
use crate::backend::{
    BackendChannel, BackendError, ChannelControl, ChannelEvent, ChannelRequest, ChannelSink,
    ChannelSource,
};
use crate::sftp::{self, FileApi};

/// What the parts of a channel and its task share. Each signal has one who waits for it.
struct Shared {
    state: Mutex<State>,
    /// For the task: there is something for the machine.
    transmit: Notify,
    /// For the task: the machine, or the user where files are served, has taken something.
    sent: Notify,
    /// For the source.
    events: Notify,
    /// For the sink: the machine has read, or there is nobody to read.
    drained: Notify,
}

struct State {
    phase: Phase,
    server: FileServer,
    asked: Session,
}

enum Phase {
    /// The stream to the machine is at its end.
    Over,
    /// Nothing was started yet.
    Ready,
    /// Something was started, or is just being started.
    Running,
}

/// What all parts of a channel own: dropped with the last of them, it ends the task and with it the stream.
struct Owner {
    shared: Arc<Shared>,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
    backend: ContermBackend,
}

/// Makes the parts of a channel to a machine, which is not dialled yet.
pub(super) fn channel(backend: ContermBackend) -> BackendChannel {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            phase: Phase::Ready,
            server: FileServer::new(Console::new(Mode::Pipes)),
            asked: Session::default(),
        }),
        transmit: Notify::new(),
        sent: Notify::new(),
        events: Notify::new(),
        drained: Notify::new(),
    });
    let owner = Arc::new(Owner {
        shared,
        task: Mutex::new(None),
        backend,
    });
    BackendChannel {
        sink: Box::new(Sink(owner.clone())),
        source: Box::new(Source(owner.clone())),
        control: Box::new(Control(owner)),
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes something, and lets everyone see what has become of it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = {
            let mut state = self.state();
            let result = change(&mut state);
            state.server.wake();
            result
        };
        self.transmit.notify_one();
        self.events.notify_one();
        self.drained.notify_one();
        result
    }

    /// Serves the machine until one of us ends it.
    async fn serve(&self, connection: Connection) {
        let (reader, writer) = tokio::io::split(connection.stream);
        let reading = self.read(reader, connection.input, connection.opener);
        tokio::select! {
            ended = reading => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "the machine was cut off");
                }
            }
            () = self.write(writer, connection.sealer) => {}
        }
        self.change(|state| state.phase = Phase::Over);
    }

    async fn read(
        &self,
        mut stream: ReadHalf<Box<dyn Stream>>,
        mut input: BytesMut,
        mut opener: Opener,
    ) -> Result<(), ContermError> {
        loop {
            match opener.open(&mut input)? {
                Opened::Data(data) => self.handle(&data).await?,
                Opened::End => return Ok(()),
                Opened::Wait => match stream.read_buf(&mut input).await {
                    Ok(0) | Err(_) => return Ok(()),
                    Ok(_) => {}
                },
            }
        }
    }

    /// Hands over what the machine asks. A machine that asks and does not listen is not listened to.
    async fn handle(&self, data: &[u8]) -> Result<(), ContermError> {
        let mut data = data;
        loop {
            let (taken, unsent) = self.change(|state| {
                let taken = state.server.handle(data);
                (taken, state.server.unsent())
            });
            taken.map_err(|_| ContermError::Protocol("a malformed 9P message"))?;
            if unsent <= MAX_UNSENT {
                return Ok(());
            }
            data = &[];
            self.sent.notified().await;
        }
    }

    /// Writes to the machine until the session is over.
    async fn write(&self, mut stream: WriteHalf<Box<dyn Stream>>, mut sealer: Sealer) {
        loop {
            let (plain, finished) = {
                let mut state = self.state();
                let plain = state.server.poll_transmit();
                (plain, state.server.console.is_finished())
            };
            let mut sealed = BytesMut::new();
            match &plain {
                Some(plain) => sealer.seal(plain, &mut sealed),
                None if finished => sealer.close(&mut sealed),
                None => {
                    self.transmit.notified().await;
                    continue;
                }
            }
            let written = async {
                stream.write_all(&sealed).await?;
                stream.flush().await
            };
            if written.await.is_err() {
                return;
            }
            self.sent.notify_one();
            if plain.is_none() {
                let _ = stream.shutdown().await;
                return;
            }
        }
    }
}

impl Shared {
    /// Makes ready for what was asked, and the script for it.
    fn prepare(&self, command: Option<Bytes>, protocol: ContermProtocol) -> Bytes {
        let mut state = self.state();
        state.asked.command = command;
        let mode = state.asked.mode();
        let script = state.asked.script(protocol);
        state.server.set_script(script.clone());
        state.server.console.set_mode(mode);
        script
    }

    /// Says to the user of a terminal where it is.
    fn greet(&self, backend: &ContermBackend) {
        self.change(|state| {
            if state.asked.mode() == Mode::Terminal {
                let banner = Bytes::from(backend.login.banner());
                state.server.console.say(ChannelEvent::Data(banner));
            }
        });
    }

    /// Tells the user a sentence in place of what was asked for.
    fn end_with(&self, sentence: &str, status: &str) {
        self.change(|state| {
            state.phase = Phase::Over;
            let sentence = Bytes::from(sentence.to_owned());
            state.server.console.say(ChannelEvent::Stderr(sentence));
            state.server.console.exit(status.as_bytes());
        });
    }

    /// Serves files in the machine's place, until the user has no more to ask.
    async fn serve_files(&self, files: Arc<dyn FileApi>) {
        let (requests, input) = mpsc::channel(sftp::QUEUE);
        let (output, mut answers) = mpsc::channel(sftp::QUEUE);
        let feed = async move {
            loop {
                let piece = self.state().server.console.read(Node::Stdin, PIECE);
                self.drained.notify_one();
                match piece {
                    Some(end) if end.is_empty() => return,
                    Some(piece) => {
                        if requests.send(piece).await.is_err() {
                            return;
                        }
                    }
                    None => self.transmit.notified().await,
                }
            }
        };
        let forward = async {
            while let Some(event) = answers.recv().await {
                while !self.state().server.console.has_room() {
                    self.sent.notified().await;
                }
                self.change(|state| state.server.console.say(event));
            }
        };
        let serve = async { tokio::join!(sftp::serve_channel(files, input, output), forward) };
        // What a client sends to a server that gave up is not waited for.
        let feed = async {
            feed.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = serve => {}
            () = feed => {}
        }
        self.change(|state| state.phase = Phase::Over);
    }
}

impl Owner {
    /// Starts a command, or else a shell. That the machine gives no session is told as what that says.
    fn start(&self, command: Option<Bytes>) -> Result<(), BackendError> {
        self.take_up()?;
        let (shared, backend) = (self.shared.clone(), self.backend.clone());
        let script = shared.prepare(command, backend.login.protocol);
        self.run(async move {
            match Box::pin(backend.start(&script)).await {
                Ok(connection) => {
                    shared.greet(&backend);
                    shared.serve(connection).await;
                }
                Err(error) => shared.end_with(&format!("{error}\n"), LOST),
            }
        });
        Ok(())
    }

    fn serve_files(&self, files: Arc<dyn FileApi>) -> Result<(), BackendError> {
        self.take_up()?;
        let shared = self.shared.clone();
        self.run(async move { shared.serve_files(files).await });
        Ok(())
    }

    /// A channel is for one thing.
    fn take_up(&self) -> Result<(), BackendError> {
        let mut state = self.shared.state();
        if !matches!(state.phase, Phase::Ready) {
            return Err(BackendError::Refused);
        }
        state.phase = Phase::Running;
        Ok(())
    }

    fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        *lock(&self.task) = Some(AbortOnDropHandle::new(tokio::spawn(work)));
    }

    fn note(&self, signal: &str) -> Result<(), BackendError> {
        let note = match signal {
            "INT" => "interrupt",
            "HUP" => "hangup",
            "TERM" | "KILL" => "kill",
            _ => return Err(BackendError::Unsupported("this signal")),
        };
        self.shared.change(|state| state.server.console.note(note));
        Ok(())
    }
}

struct Sink(Arc<Owner>);

#[async_trait]
impl ChannelSink for Sink {
    async fn data(&mut self, data: Bytes) -> Result<(), BackendError> {
        let shared = &self.0.shared;
        shared.change(|state| state.server.console.handle_input(&data));
        loop {
            {
                let state = shared.state();
                let console = &state.server.console;
                if matches!(state.phase, Phase::Over) || console.is_finished() {
                    return Err(BackendError::Closed);
                }
                if console.waiting() <= MAX_WAITING {
                    return Ok(());
                }
            }
            shared.drained.notified().await;
        }
    }

    async fn eof(&mut self) -> Result<(), BackendError> {
        self.0
            .shared
            .change(|state| state.server.console.handle_eof());
        Ok(())
    }
}

struct Source(Arc<Owner>);

#[async_trait]
impl ChannelSource for Source {
    async fn next(&mut self) -> Option<ChannelEvent> {
        let shared = &self.0.shared;
        loop {
            let (event, over, finished) = {
                let mut state = shared.state();
                let event = state.server.console.poll_event();
                if event.is_some() {
                    state.server.wake();
                }
                let over = matches!(state.phase, Phase::Over);
                (event, over, state.server.console.is_finished())
            };
            if event.is_some() {
                shared.transmit.notify_one();
                shared.sent.notify_one();
                return event;
            }
            if over {
                return None;
            }
            let more = shared.events.notified();
            if finished {
                // The machine gets its last answers, unless it does not want them.
                tokio::time::timeout(FAREWELL, more).await.ok()?;
            } else {
                more.await;
            }
        }
    }
}

struct Control(Arc<Owner>);

#[async_trait]
impl ChannelControl for Control {
    async fn request(&self, request: ChannelRequest) -> Result<(), BackendError> {
        let owner = &self.0;
        match request {
            ChannelRequest::Agent => Err(BackendError::Unsupported("agent forwarding")),
            ChannelRequest::Env { name, value } => {
                if !is_variable(&name) || value.contains('\0') {
                    return Err(BackendError::Refused);
                }
                let mut state = owner.shared.state();
                state.asked.variables.push((name, value));
                Ok(())
            }
            ChannelRequest::Exec(command) => {
                let files = owner.backend.dialer.files();
                if let Some(sentence) = refusal::of_command(&command, files.is_some()) {
                    owner.shared.end_with(sentence, REFUSED);
                    return Ok(());
                }
                if command.contains(&0) || command.len() > MAX_COMMAND {
                    return Err(BackendError::Refused);
                }
                owner.start(Some(command))
            }
            ChannelRequest::Pty(pty) => {
                owner.shared.state().asked.terminal = Some(pty.size);
                Ok(())
            }
            ChannelRequest::Shell => owner.start(None),
            ChannelRequest::Signal(name) => owner.note(&name),
            ChannelRequest::Subsystem(name) => match owner.backend.dialer.files() {
                Some(files) if name == "sftp" => owner.serve_files(files),
                _ => {
                    owner.shared.end_with(refusal::of_subsystem(&name), REFUSED);
                    Ok(())
                }
            },
            // A console of Plan 9 has no size; the script has told the one at the start.
            ChannelRequest::WindowChange(_) => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The exit status where the machine gives no session: that of `ssh` where it reaches nobody.
const LOST: &str = "255";

/// The exit status of what is not done.
const REFUSED: &str = "1";

/// How much of what a user sends is taken at a time.
const PIECE: usize = 32 << 10;

/// How long a machine may take to accept our last answers.
const FAREWELL: Duration = Duration::from_secs(2);
