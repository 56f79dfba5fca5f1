//! A multiplexer that keeps every promise, in the frames of yamux.

mod channel;
mod state;
mod stream;
mod wire;

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::state::State;
use self::stream::Stream;
use crate::mux::{FrameKind, Frames, MakeMux, Mux, Side};
use crate::pair::{BoxFuture, End, Wire};
use crate::reference::yamux;

/// Makes sessions that keep every promise: small, plain, and slow. Its frames are those of yamux, version 0.
pub fn sessions() -> impl MakeMux {
    Sessions(Flaw::None)
}

/// What mutants of the session get wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flaw {
    AbandonedDialTakesAnswer,
    AcceptLosesStream,
    AllocatesByHeader,
    AnswersThreefold,
    BlockedByAbandonedOpen,
    CloseWakesNobody,
    ControlWaits,
    EmptyWriteIsFrame,
    FinishedStreamsCount,
    FrameFair,
    GoAwayDropsStreams,
    GoAwayIgnored,
    IdsRunOut,
    LazyOpen,
    NeverYields,
    NoStreamLimit,
    None,
    OneTooManyKills,
    PanicsOnBigFrame,
    PongWaits,
    RemembersStreams,
    SameIdsOnBothSides,
    SharedInbox,
    SilenceKills,
    SmallBacklog,
    SplitHeader,
    StagesAhead,
    StrangePongKills,
    StreamBuffers,
    TwoWrites,
}

/// Sessions with a flaw, or none.
pub(crate) struct Sessions(pub(crate) Flaw);

impl MakeMux for Sessions {
    fn side(&self, wire: Wire, side: Side) -> BoxFuture<'_, io::Result<Box<dyn Mux>>> {
        let shared = Arc::new(Shared {
            flaw: self.0,
            state: Mutex::new(State::new(self.0, side)),
        });
        let mut tasks = JoinSet::new();
        let mut driver = Driver {
            wire,
            shared: Arc::clone(&shared),
            out: Vec::new(),
            sent: 0,
        };
        tasks.spawn(poll_fn(move |cx| driver.poll(cx)));
        if self.0 == Flaw::SilenceKills {
            let shared = Arc::clone(&shared);
            tasks.spawn(async move {
                tokio::time::sleep(Duration::from_secs(75)).await;
                shared.with(|state, wakes| {
                    if state.is_silent() {
                        state.end(ErrorKind::ConnectionAborted, wakes);
                    }
                });
            });
        }
        let session = Session {
            shared,
            opening: Arc::default(),
            _tasks: tasks,
        };
        Box::pin(async move { Ok(Box::new(session) as Box<dyn Mux>) })
    }

    fn frames(&self) -> Option<&dyn Frames> {
        Some(&yamux::YamuxFrames)
    }
}

/// What the streams, the session and its driver share.
struct Shared {
    flaw: Flaw,
    state: Mutex<State>,
}

impl Shared {
    /// Does something with the state, then wakes whom it concerns, after the lock is gone.
    fn with<T>(&self, act: impl FnOnce(&mut State, &mut Vec<Waker>) -> T) -> T {
        let mut wakes = Vec::new();
        let result = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            act(&mut state, &mut wakes)
        };
        wakes.into_iter().for_each(Waker::wake);
        result
    }
}

/// The task that owns the transport.
struct Driver {
    wire: Wire,
    shared: Arc<Shared>,
    out: Vec<u8>,
    sent: usize,
}

/// What became of one look at the transport.
enum Progress {
    Ended,
    Made,
    None,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.shared.with(|state, _| state.park_driver(cx));
            let (read, written) = (self.read(cx), self.write(cx));
            match (read, written) {
                (Progress::Ended, _) | (_, Progress::Ended) => return Poll::Ready(()),
                (Progress::None, Progress::None) => return Poll::Pending,
                _ => {}
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Progress {
        if self.shared.with(|state, _| state.is_deaf()) {
            return Progress::None;
        }
        let mut chunk = [0; 16 * 1024];
        let mut buf = ReadBuf::new(&mut chunk);
        match Pin::new(&mut self.wire).poll_read(cx, &mut buf) {
            Poll::Pending => Progress::None,
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                self.shared
                    .with(|state, wakes| state.receive(buf.filled(), wakes));
                Progress::Made
            }
            Poll::Ready(_) => {
                self.fail();
                Progress::Ended
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Progress {
        if self.sent == self.out.len() {
            self.sent = 0;
            self.out = self.shared.with(State::next_output);
        }
        if self.out.is_empty() {
            // Whoever flushes waits for the transport to have the bytes; what it does with them is its own affair.
            let flushed = Pin::new(&mut self.wire).poll_flush(cx);
            let over = self.shared.with(|state, _| state.is_over());
            return match flushed {
                Poll::Ready(_) if over => Progress::Ended,
                Poll::Ready(_) | Poll::Pending => Progress::None,
            };
        }
        let header_alone = self.shared.flaw == Flaw::TwoWrites && self.sent < yamux::HEADER;
        let end = if header_alone {
            yamux::HEADER
        } else {
            self.out.len()
        };
        match Pin::new(&mut self.wire).poll_write(cx, &self.out[self.sent..end]) {
            Poll::Pending => Progress::None,
            Poll::Ready(Ok(n @ 1..)) => {
                self.sent += n;
                if self.sent == self.out.len() {
                    self.shared.with(State::output_taken);
                }
                Progress::Made
            }
            Poll::Ready(_) => {
                self.fail();
                Progress::Ended
            }
        }
    }

    fn fail(&self) {
        self.shared
            .with(|state, wakes| state.end(ErrorKind::ConnectionAborted, wakes));
    }
}

impl Drop for Driver {
    /// Whatever ends the task, a waker that panics among it, ends the session.
    fn drop(&mut self) {
        self.fail();
    }
}

struct Session {
    shared: Arc<Shared>,
    opening: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared
            .with(|state, wakes| state.end(ErrorKind::ConnectionAborted, wakes));
    }
}

impl Session {
    async fn wait<T>(
        &self,
        mut look: impl FnMut(&mut State, &Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        poll_fn(|cx| self.shared.with(|state, _| look(state, cx))).await
    }
}

impl Mux for Session {
    fn open(&self) -> BoxFuture<'_, io::Result<End>> {
        Box::pin(async {
            if self.shared.flaw == Flaw::BlockedByAbandonedOpen {
                while self.opening.swap(true, Ordering::SeqCst) {
                    tokio::task::yield_now().await;
                }
            }
            let id = self.shared.with(State::open)?;
            let stream = Stream::new(Arc::clone(&self.shared), id);
            let answered = self.wait(|state, cx| state.poll_opened(id, cx)).await?;
            self.opening.store(false, Ordering::SeqCst);
            if answered != id {
                std::mem::forget(stream);
                return Ok(End::new(Stream::new(Arc::clone(&self.shared), answered)));
            }
            Ok(End::new(stream))
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Option<End>>> {
        Box::pin(async {
            let accepted = self.wait(State::poll_accept).await?;
            if self.shared.flaw == Flaw::AcceptLosesStream {
                // Whoever gives up here has taken the stream.
                tokio::task::yield_now().await;
            }
            Ok(accepted.map(|id| End::new(Stream::new(Arc::clone(&self.shared), id))))
        })
    }

    fn ping(&self) -> BoxFuture<'_, io::Result<Duration>> {
        Box::pin(async {
            let start = Instant::now();
            let number = self.shared.with(|state, wakes| state.ping(wakes));
            self.wait(|state, cx| state.poll_pong(number, cx)).await?;
            Ok(start.elapsed())
        })
    }

    fn go_away(&self) -> BoxFuture<'_, io::Result<()>> {
        let frame = yamux::encode(FrameKind::GoAway, 0, 0);
        Box::pin(async move {
            self.shared
                .with(|state, wakes| state.control(&frame, wakes));
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async {
            self.shared
                .with(|state, wakes| state.end(ErrorKind::NotConnected, wakes));
            Ok(())
        })
    }
}

/// The streams that each side of a [`sessions()`] session opens at a time.
pub const SESSION_STREAMS: usize = state::STREAMS;

/// The unread bytes of one direction of a stream: what the window grants, what waits for the transport, what the
/// transport holds, and one frame in the driver's hands.
pub const SESSION_BOUND: usize = state::WINDOW + 2 * state::OUTBOX + 16 * 1024;
