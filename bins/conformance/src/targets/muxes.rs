//! Multiplexers of others, each driven by a task that ends with its session.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use conn_conformance::reference::YamuxFrames;
use conn_conformance::{BoxFuture, Cap, Caps, End, Frames, MakeMux, Mux, Side, Target, Wire};
use futures_util::StreamExt;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

/// What both claim: what the specification of yamux and tokio's traits say, and what each side can do.
const CLAIMS: Caps = Caps::of(&[
    Cap::BothOpen,
    Cap::CutVisible,
    Cap::FlushOnWire,
    Cap::Frames,
    Cap::GoAway,
    Cap::HalfClose,
    Cap::InMemory,
    Cap::Layered,
    Cap::OneConnection,
    Cap::PeerGone,
    Cap::ResetVisible,
    Cap::SessionClose,
])
.bounded(1 << 20)
.max_streams(STREAMS);

/// The `yamux` crate of libp2p, version 0.14.1.
pub(crate) fn yamux() -> Target {
    Target::mux("yamux", Yamux, CLAIMS)
}

/// The `tokio-yamux` crate of nervosnetwork, version 0.3.20.
pub(crate) fn tokio_yamux() -> Target {
    Target::mux("tokio-yamux", TokioYamux, CLAIMS)
}

struct Yamux;

impl MakeMux for Yamux {
    fn side(&self, wire: Wire, side: Side) -> BoxFuture<'_, io::Result<Box<dyn Mux>>> {
        Box::pin(async move {
            let mode = match side {
                Side::Client => yamux::Mode::Client,
                Side::Server => yamux::Mode::Server,
            };
            let mut config = yamux::Config::default();
            config.set_max_num_streams(STREAMS);
            config.set_max_connection_receive_window(None);
            let connection = yamux::Connection::new(wire.compat(), config, mode);
            let (commands, receiver) = mpsc::channel(QUEUE);
            let (sender, inbound) = mpsc::channel(QUEUE);
            let mut driver = JoinSet::new();
            let mut state = Driver {
                connection,
                commands: receiver,
                inbound: sender,
                opening: VecDeque::new(),
                closing: None,
            };
            driver.spawn(async move { poll_fn(|cx| state.poll(cx)).await });
            let session = YamuxSession {
                commands,
                inbound: Mutex::new(inbound),
                _driver: driver,
            };
            Ok(Box::new(session) as Box<dyn Mux>)
        })
    }

    fn frames(&self) -> Option<&dyn Frames> {
        Some(&YamuxFrames)
    }
}

enum Command {
    Close(oneshot::Sender<()>),
    Open(oneshot::Sender<io::Result<End>>),
}

struct YamuxSession {
    commands: mpsc::Sender<Command>,
    inbound: Mutex<mpsc::Receiver<io::Result<End>>>,
    _driver: JoinSet<()>,
}

/// Polls a yamux connection, which moves only while it is polled.
struct Driver {
    connection: yamux::Connection<Compat<Wire>>,
    commands: mpsc::Receiver<Command>,
    inbound: mpsc::Sender<io::Result<End>>,
    opening: VecDeque<oneshot::Sender<io::Result<End>>>,
    closing: Option<oneshot::Sender<()>>,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(Some(command)) = self.commands.poll_recv(cx) {
            match command {
                Command::Open(reply) => self.opening.push_back(reply),
                Command::Close(reply) => self.closing = Some(reply),
            }
        }
        if self.closing.is_some() {
            if self.connection.poll_close(cx).is_pending() {
                return Poll::Pending;
            }
            // Whoever asked may have stopped waiting.
            let _ = self.closing.take().map(|reply| reply.send(()));
            return Poll::Ready(());
        }
        while let Some(reply) = self.opening.pop_front() {
            match self.connection.poll_new_outbound(cx) {
                Poll::Pending => {
                    self.opening.push_front(reply);
                    break;
                }
                Poll::Ready(opened) => {
                    let opened = opened.map(|stream| End::new(stream.compat()));
                    let _ = reply.send(opened.map_err(io::Error::other));
                }
            }
        }
        loop {
            match self.connection.poll_next_inbound(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(stream))) => {
                    // A full queue drops the stream, as a full backlog does.
                    let _ = self.inbound.try_send(Ok(End::new(stream.compat())));
                }
                Poll::Ready(Some(Err(error))) => {
                    let _ = self.inbound.try_send(Err(io::Error::other(error)));
                }
                Poll::Ready(None) => return Poll::Ready(()),
            }
        }
    }
}

impl Mux for YamuxSession {
    fn open(&self) -> BoxFuture<'_, io::Result<End>> {
        Box::pin(async {
            let (reply, opened) = oneshot::channel();
            let gone = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
            let sent = self.commands.send(Command::Open(reply)).await;
            sent.map_err(|_| io::ErrorKind::ConnectionAborted)?;
            opened.await.map_err(gone)?
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Option<End>>> {
        Box::pin(async { self.inbound.lock().await.recv().await.transpose() })
    }

    fn close(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async {
            let (reply, closed) = oneshot::channel();
            let sent = self.commands.send(Command::Close(reply)).await;
            sent.map_err(|_| io::ErrorKind::ConnectionAborted)?;
            closed
                .await
                .map_err(|_| io::ErrorKind::ConnectionAborted.into())
        })
    }
}

struct TokioYamux;

impl MakeMux for TokioYamux {
    fn side(&self, wire: Wire, side: Side) -> BoxFuture<'_, io::Result<Box<dyn Mux>>> {
        Box::pin(async move {
            let config = tokio_yamux::Config {
                max_stream_count: STREAMS,
                ..tokio_yamux::Config::default()
            };
            let mut session = match side {
                Side::Client => tokio_yamux::Session::new_client(wire, config),
                Side::Server => tokio_yamux::Session::new_server(wire, config),
            };
            let control = session.control();
            let (sender, inbound) = mpsc::channel(QUEUE);
            let mut driver = JoinSet::new();
            driver.spawn(async move {
                while let Some(stream) = session.next().await {
                    let failed = stream.is_err();
                    let stream = stream.map(End::new).map_err(io::Error::other);
                    // A full queue drops the stream, as a full backlog does.
                    let _ = sender.try_send(stream);
                    if failed {
                        break;
                    }
                }
            });
            let session = TokioYamuxSession {
                control,
                inbound: Mutex::new(inbound),
                _driver: driver,
            };
            Ok(Box::new(session) as Box<dyn Mux>)
        })
    }

    fn frames(&self) -> Option<&dyn Frames> {
        Some(&YamuxFrames)
    }
}

struct TokioYamuxSession {
    control: tokio_yamux::Control,
    inbound: Mutex<mpsc::Receiver<io::Result<End>>>,
    _driver: JoinSet<()>,
}

impl Mux for TokioYamuxSession {
    fn open(&self) -> BoxFuture<'_, io::Result<End>> {
        let mut control = self.control.clone();
        Box::pin(async move {
            let stream = control.open_stream().await;
            stream.map(End::new).map_err(io::Error::other)
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Option<End>>> {
        Box::pin(async { self.inbound.lock().await.recv().await.transpose() })
    }

    fn close(&self) -> BoxFuture<'_, io::Result<()>> {
        let mut control = self.control.clone();
        Box::pin(async move {
            control.close().await;
            Ok(())
        })
    }
}

/// The streams that a session allows at a time.
const STREAMS: usize = 256;

/// Commands and streams that wait for the other task.
const QUEUE: usize = 512;
