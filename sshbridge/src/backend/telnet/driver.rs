//! The task of one session: it owns the stream, and moves bytes between it, the session and the channel.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};

use super::session::{End, LoginError, Session};
use super::{TelnetDialer, TelnetSettings};
use crate::backend::ssh::Stream;
use crate::backend::{BackendError, ChannelEvent, PtyRequest, WindowSize};

/// The channel, as the task sees it.
pub(super) struct Ports {
    pub(super) input: mpsc::Receiver<Bytes>,
    pub(super) output: mpsc::Sender<ChannelEvent>,
    pub(super) size: watch::Receiver<WindowSize>,
    pub(super) signals: mpsc::Receiver<String>,
}

/// Why there is no session, or none any more.
pub(super) struct Failed {
    pub(super) sentence: String,
    pub(super) status: u32,
}

impl Failed {
    /// Tells the user, and its program.
    pub(super) async fn tell(self, output: &mpsc::Sender<ChannelEvent>, line_end: &str) {
        let sentence = Bytes::from(format!("{}{line_end}", self.sentence));
        // Whoever does not listen any more has no need of it.
        let _ = output.send(ChannelEvent::Stderr(sentence)).await;
        let _ = output.send(ChannelEvent::ExitStatus(self.status)).await;
    }
}

/// Holds one session, from the dialling to its end.
pub(super) async fn run(
    dialer: Arc<dyn TelnetDialer>,
    settings: TelnetSettings,
    pty: Option<PtyRequest>,
    mut ports: Ports,
) {
    let line_end = if pty.is_some() { "\r\n" } else { "\n" };
    let output = ports.output.clone();
    // A program that reads the output of a shell without a terminal does not want our words in it.
    let files = if dialer.files().is_some() {
        "sftp and scp"
    } else {
        "gomote put and gomote gettar"
    };
    let about = Bytes::from(format!("{ABOUT} Files: {files}.{line_end}"));
    let about = match &pty {
        Some(_) => ChannelEvent::Data(about),
        None => ChannelEvent::Stderr(about),
    };
    if output.send(about).await.is_err() {
        return;
    }
    let held = async {
        let target = dialer.dial().await.map_err(|error| unreachable(&error))?;
        let mut pty = pty.unwrap_or_else(|| PtyRequest::new("dumb", NO_TERMINAL));
        // Taken note of here, so that it is told once.
        let size = *ports.size.borrow_and_update();
        if size != WindowSize::default() {
            pty.size = size;
        }
        let session = Session::new(target.login, settings, &pty, now());
        let (reader, writer) = tokio::io::split(target.stream);
        let driver = Driver {
            session,
            reader,
            writer,
            ports,
            sending: Sending::Flushed,
        };
        driver.run().await
    };
    let ended = tokio::select! {
        ended = held => ended,
        () = output.closed() => return,
    };
    match ended {
        Ok(Some(event)) => {
            let _ = output.send(event).await;
        }
        // The end without an event says that the machine was lost.
        Ok(None) => {}
        Err(failed) => failed.tell(&output, line_end).await,
    }
}

fn unreachable(error: &BackendError) -> Failed {
    Failed {
        sentence: error.to_string(),
        status: LOST,
    }
}

/// How a session that ended is told.
fn told(end: &End) -> Result<Option<ChannelEvent>, Failed> {
    match end {
        End::Closed => Ok(Some(ChannelEvent::ExitStatus(0))),
        End::Cut => Ok(None),
        End::HungUp(signal) => Ok(Some(ChannelEvent::ExitSignal {
            signal: (*signal).to_owned(),
            core_dumped: false,
            message: String::new(),
        })),
        End::Login(error @ LoginError::TimedOut) => Err(Failed {
            sentence: error.to_string(),
            status: LOST,
        }),
        End::Login(error) => Err(Failed {
            sentence: error.to_string(),
            status: NO_LOGIN,
        }),
        End::Protocol(error) => Err(Failed {
            sentence: error.to_string(),
            status: LOST,
        }),
    }
}

struct Driver {
    session: Session,
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    ports: Ports,
    sending: Sending,
}

/// What became of the bytes that were written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sending {
    /// They have left.
    Flushed,
    /// Some may still wait in a buffer of the stream.
    Unflushed,
    /// The stream takes none any more; what the server said before is still to be read.
    Broken,
}

impl Driver {
    /// Runs until the session ends. `None` where the stream broke.
    async fn run(mut self) -> Result<Option<ChannelEvent>, Failed> {
        let mut buffer = vec![0; CHUNK];
        while self.session.end().is_none() {
            self.turn(&mut buffer).await;
        }
        let rest = self.session.take_output();
        if !rest.is_empty() {
            let _ = self.ports.output.send(ChannelEvent::Data(rest)).await;
        }
        self.session.end().map_or(Ok(None), told)
    }

    /// Waits for the next thing that can be done, and does it.
    async fn turn(&mut self, buffer: &mut [u8]) {
        let Self {
            session,
            reader,
            writer,
            ports,
            sending,
        } = self;
        let timeout = session.timeout();
        let due = async {
            match timeout {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let sent = send(writer, session.transmit(), *sending);
        tokio::select! {
            read = reader.read(buffer), if session.room_for_server() => match read {
                Ok(0) => session.handle_eof(),
                Ok(length) => session.handle_input(now(), &buffer[..length]),
                Err(_) => session.handle_cut(),
            },
            sent = sent => {
                let (length, after) = sent;
                session.sent(length);
                *sending = after;
            }
            permit = ports.output.reserve(), if session.has_output() => {
                if let Ok(permit) = permit {
                    permit.send(ChannelEvent::Data(session.take_output()));
                }
            }
            Some(typed) = ports.input.recv(), if session.room_for_user() => {
                session.handle_typed(&typed);
            }
            Ok(()) = ports.size.changed() => session.resize(*ports.size.borrow_and_update()),
            Some(name) = ports.signals.recv() => {
                if !session.signal(&name) {
                    tracing::debug!(name, "telnet has no such signal");
                }
            }
            () = due => session.handle_timeout(now()),
        }
    }
}

/// Writes a part of `bytes` and says how long it is, or flushes where there is nothing to write, or waits for ever. What a
/// broken stream does not take is done with. Cancel safe.
async fn send(
    writer: &mut WriteHalf<Box<dyn Stream>>,
    bytes: &[u8],
    sending: Sending,
) -> (usize, Sending) {
    match (sending, bytes) {
        (Sending::Flushed | Sending::Broken, []) => std::future::pending().await,
        (Sending::Broken, _) => (bytes.len(), Sending::Broken),
        (Sending::Unflushed, []) => match writer.flush().await {
            Ok(()) => (0, Sending::Flushed),
            Err(_) => (0, Sending::Broken),
        },
        (Sending::Flushed | Sending::Unflushed, _) => match writer.write(bytes).await {
            Ok(0) | Err(_) => (bytes.len(), Sending::Broken),
            Ok(length) => (length, Sending::Unflushed),
        },
    }
}

/// The clock that a test may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What every session begins with.
const ABOUT: &str =
    "# This machine is reached by telnet: a shell only, without commands and forwarding.";

/// Of a shell without a terminal: what servers take where nobody says.
const NO_TERMINAL: WindowSize = WindowSize {
    columns: 80,
    rows: 24,
    width_pixels: 0,
    height_pixels: 0,
};

/// What is read at a time.
const CHUNK: usize = 32 << 10;

/// The exit status where the login was refused.
const NO_LOGIN: u32 = 1;

/// The exit status of `ssh` where a machine is lost.
const LOST: u32 = 255;
