//! A session channel: until something is started it is only what was asked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::driver::{self, Failed, Ports};
use super::{TelnetDialer, TelnetSettings};
use crate::backend::{
    BackendChannel, BackendError, ChannelControl, ChannelEvent, ChannelRequest, ChannelSink,
    ChannelSource, PtyRequest, WindowSize,
};
use crate::sftp;

/// Opens a channel to the machine behind `dialer`, which is not dialled yet.
pub(super) fn open(dialer: Arc<dyn TelnetDialer>, settings: TelnetSettings) -> BackendChannel {
    let (typed, input) = mpsc::channel(1);
    let (output, events) = mpsc::channel(QUEUE);
    let (signals, interrupts) = mpsc::channel(QUEUE);
    let (resize, size) = watch::channel(WindowSize::default());
    let running = Arc::default();
    BackendChannel {
        sink: Box::new(Sink {
            typed: Some(typed),
            _running: Arc::clone(&running),
        }),
        source: Box::new(Source {
            events,
            _running: Arc::clone(&running),
        }),
        control: Box::new(Control {
            dialer,
            settings,
            resize,
            signals,
            state: Mutex::new(State {
                pty: None,
                ports: Some(Ports {
                    input,
                    output,
                    size,
                    signals: interrupts,
                }),
            }),
            running,
        }),
    }
}

/// What was started. It ends with the last part of the channel.
type Running = Arc<Mutex<Option<AbortOnDropHandle<()>>>>;

struct Sink {
    typed: Option<mpsc::Sender<Bytes>>,
    _running: Running,
}

#[async_trait]
impl ChannelSink for Sink {
    async fn data(&mut self, mut data: Bytes) -> Result<(), BackendError> {
        let typed = self.typed.as_ref().ok_or(BackendError::Closed)?;
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            typed.send(piece).await.map_err(|_| BackendError::Closed)?;
        }
        Ok(())
    }

    async fn eof(&mut self) -> Result<(), BackendError> {
        self.typed = None;
        Ok(())
    }
}

struct Source {
    events: mpsc::Receiver<ChannelEvent>,
    _running: Running,
}

#[async_trait]
impl ChannelSource for Source {
    async fn next(&mut self) -> Option<ChannelEvent> {
        self.events.recv().await
    }
}

struct Control {
    dialer: Arc<dyn TelnetDialer>,
    settings: TelnetSettings,
    resize: watch::Sender<WindowSize>,
    signals: mpsc::Sender<String>,
    state: Mutex<State>,
    running: Running,
}

struct State {
    pty: Option<PtyRequest>,
    /// The other ends of the channel, until something is started.
    ports: Option<Ports>,
}

#[async_trait]
impl ChannelControl for Control {
    async fn request(&self, request: ChannelRequest) -> Result<(), BackendError> {
        match request {
            ChannelRequest::Agent => Err(BackendError::Unsupported("forwarding")),
            // A server that takes a client's variables can be entered by them.
            ChannelRequest::Env { .. } => Err(BackendError::Unsupported("variables")),
            ChannelRequest::Exec(command) if command.starts_with(b"scp ") => {
                self.explain(match self.dialer.files() {
                    Some(_) => USE_SFTP,
                    None => NO_FILES,
                })
            }
            ChannelRequest::Exec(_) => self.explain(NO_COMMANDS),
            ChannelRequest::Pty(pty) => {
                self.resize.send_replace(pty.size);
                self.state().pty = Some(pty);
                Ok(())
            }
            ChannelRequest::Shell => self.shell(),
            ChannelRequest::Signal(name) => {
                // More than a few that wait mean no more than those.
                self.signals
                    .try_send(name)
                    .map_err(|_| BackendError::Refused)
            }
            ChannelRequest::Subsystem(name) if name == "sftp" => self.files(),
            ChannelRequest::Subsystem(_) => self.explain(NO_SUBSYSTEMS),
            ChannelRequest::WindowChange(size) => {
                self.resize.send_replace(size);
                Ok(())
            }
        }
    }
}

impl Control {
    fn shell(&self) -> Result<(), BackendError> {
        let (dialer, settings) = (self.dialer.clone(), self.settings);
        let pty = self.state().pty.clone();
        self.start(|ports| driver::run(dialer, settings, pty, ports))
    }

    fn files(&self) -> Result<(), BackendError> {
        let Some(files) = self.dialer.files() else {
            return self.explain(NO_FILES);
        };
        self.start(|ports| sftp::serve_channel(files, ports.input, ports.output))
    }

    /// Starts nothing, and says what serves instead.
    fn explain(&self, sentence: &'static str) -> Result<(), BackendError> {
        self.start(|ports| async move {
            let failed = Failed {
                sentence: sentence.to_owned(),
                status: REFUSED,
            };
            failed.tell(&ports.output, "\n").await;
        })
    }

    fn start<F>(&self, work: impl FnOnce(Ports) -> F) -> Result<(), BackendError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let ports = self.state().ports.take().ok_or(BackendError::Refused)?;
        let work = AbortOnDropHandle::new(tokio::spawn(work(ports)));
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NO_COMMANDS: &str = "this machine is reached by telnet, which starts no single commands: log in without one, or \
     use `gomote run`";
const USE_SFTP: &str =
    "this machine is reached by telnet and has no program scp: use `sftp`, or `scp` without -O";
const NO_SUBSYSTEMS: &str =
    "this machine is reached by telnet, which has no subsystems: log in for a shell";
const NO_FILES: &str = "this machine is reached by telnet, and its files are not served: use `gomote put` and `gomote gettar`";

/// The exit status of what is not done.
const REFUSED: u32 = 1;

/// What a session takes of its user at once.
const PIECE: usize = 16 << 10;

/// Pieces of the output, and signals, that wait to be taken.
const QUEUE: usize = 4;
