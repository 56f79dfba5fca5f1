//! The one task that owns a control connection, and what its handles share with it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::addr::Addr;
use crate::config::Config;
use crate::direct::{BoxTransport, linger};
use crate::driver::Timer;
use crate::error::CloseReason;
use crate::link::now;
use crate::v2::control::Control;

/// A control connection, as its handles and its driver see it.
#[derive(Debug)]
pub(crate) struct Shared<C> {
    state: Mutex<State<C>>,
    closed: watch::Sender<Option<CloseReason>>,
    local_addr: Option<SocketAddr>,
    peer_addr: Option<SocketAddr>,
}

/// What the lock guards.
#[derive(Debug)]
struct State<C> {
    control: C,
    /// A handle did something since the driver looked last.
    touched: bool,
    driver: Option<Waker>,
}

impl<C: Control> Shared<C> {
    pub(crate) fn new(control: C, config: &Config) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                control,
                touched: false,
                driver: None,
            }),
            closed: watch::Sender::default(),
            local_addr: config.local_addr,
            peer_addr: config.peer_addr,
        })
    }

    /// Does something with the machine, and has the driver see to it.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut C) -> R) -> R {
        let (result, waker) = {
            let mut state = self.lock();
            state.touched = true;
            (act(&mut state.control), state.driver.take())
        };
        self.publish();
        waker.into_iter().for_each(Waker::wake);
        result
    }

    /// Ends the link.
    pub(crate) fn end(&self, reason: CloseReason) {
        self.with(|control| control.line_mut().end(reason));
    }

    /// Why the link ended, once it has.
    pub(crate) fn ended(&self) -> Option<CloseReason> {
        self.closed.borrow().clone()
    }

    /// Waits for the end of the link.
    pub(crate) async fn closed(&self) -> CloseReason {
        let mut closed = self.closed.subscribe();
        let reason = closed.wait_for(Option::is_some).await;
        // The sender is in `self`: it cannot be gone.
        reason
            .ok()
            .and_then(|reason| reason.clone())
            .unwrap_or(CloseReason::Aborted)
    }

    pub(crate) fn local_addr(&self) -> Addr {
        Addr::new(self.local_addr, None)
    }

    pub(crate) fn peer_addr(&self) -> Addr {
        Addr::new(self.peer_addr, None)
    }

    /// Does something with the machine on behalf of the driver.
    fn drive<R>(&self, act: impl FnOnce(&mut C) -> R) -> R {
        let result = act(&mut self.lock().control);
        self.publish();
        result
    }

    /// Tells everybody when the link has ended.
    fn publish(&self) {
        let Some(reason) = self.lock().control.line().closed().cloned() else {
            return;
        };
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert(reason);
            first
        });
    }

    /// Parks the driver, unless a handle has done something meanwhile.
    fn park(&self, cx: &Context<'_>) -> bool {
        let mut state = self.lock();
        if std::mem::take(&mut state.touched) {
            return false;
        }
        let old = state.driver.replace(cx.waker().clone());
        drop(state);
        drop(old);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who deals with what happens on a control connection.
pub(crate) trait Attend<C: Control>: Send + 'static {
    /// Deals with an event.
    fn handle(&mut self, event: C::Event, shared: &Shared<C>);

    /// Goes on with what is under way; ready when something has come of it.
    fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared<C>) -> Poll<()>;
}

/// The task of a control connection.
pub(crate) struct Driver<C: Control, A> {
    link: EndOnDrop<C>,
    /// Dropped behind the link, so that whom it wakes finds the reason.
    attendant: A,
    transport: BoxTransport,
    buffer: BytesMut,
    /// What the transport has not taken of a message.
    unwritten: Option<Bytes>,
    timer: Timer,
    close_timeout: Duration,
}

/// Tells everybody when the task is dropped before it has ended.
struct EndOnDrop<C: Control>(Arc<Shared<C>>);

impl<C: Control> Drop for EndOnDrop<C> {
    fn drop(&mut self) {
        self.0.end(CloseReason::Aborted);
    }
}

impl<C: Control, A: Attend<C>> Driver<C, A> {
    /// Starts the task on the current runtime. It ends with the link, and what follows is bounded by `close_timeout`.
    pub(crate) fn spawn(
        link: Arc<Shared<C>>,
        transport: BoxTransport,
        attendant: A,
        config: &Config,
    ) {
        let driver = Self {
            link: EndOnDrop(link),
            attendant,
            transport,
            buffer: BytesMut::new(),
            unwritten: None,
            timer: Timer::default(),
            close_timeout: config.close_timeout,
        };
        tokio::spawn(driver.run());
    }

    /// Serves, then closes.
    async fn run(mut self) {
        debug!("the control connection is up");
        let reason = poll_fn(|cx| self.poll_serve(cx)).await;
        info!(%reason, "the link ended");
        let Self {
            attendant,
            mut transport,
            unwritten,
            close_timeout,
            ..
        } = self;
        drop(attendant);
        if matches!(
            reason,
            CloseReason::Aborted
                | CloseReason::Transport(_)
                | CloseReason::TimedOut(_)
                | CloseReason::Stalled(_)
        ) {
            return;
        }
        let close = async {
            if let Some(rest) = unwritten {
                transport.write_all(&rest).await?;
            }
            linger(transport).await
        };
        match tokio::time::timeout(close_timeout, close).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the control connection broke while it was closed"),
            Err(_) => debug!("the peer did not let us close the control connection in time"),
        }
    }

    /// Moves messages both ways until the link ends.
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        for _ in 0..STEPS_PER_POLL {
            let steps = [
                self.poll_input(cx),
                self.poll_events(),
                self.attendant.poll(cx, &self.link.0),
                self.poll_output(cx),
                self.poll_timer(cx),
            ];
            if let Some(reason) = self.link.0.ended() {
                return Poll::Ready(reason);
            }
            if steps.iter().all(Poll::is_pending) && self.link.0.park(cx) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once, if the machine wants to.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.link.0.drive(|control| control.wants_input()) {
            return Poll::Pending;
        }
        self.buffer.reserve(READ_SIZE);
        let read = pin!(self.transport.read_buf(&mut self.buffer)).poll(cx);
        if read.is_pending() {
            // While nothing comes no buffer is held.
            self.buffer = BytesMut::new();
        }
        let outcome = ready!(read);
        let input = self.buffer.split().freeze();
        self.link.0.drive(|control| match outcome {
            Ok(0) => control.line_mut().handle_eof(),
            Ok(_) => control.line_mut().handle_input(input),
            Err(error) => control.line_mut().handle_transport_error(error),
        });
        Poll::Ready(())
    }

    fn poll_events(&mut self) -> Poll<()> {
        let mut progress = Poll::Pending;
        while let Some(event) = self.link.0.drive(|control| control.poll_event(now())) {
            self.attendant.handle(event, &self.link.0);
            progress = Poll::Ready(());
        }
        progress
    }

    /// Writes and flushes one message.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unwritten.is_none() {
            self.unwritten = self.link.0.drive(|control| control.poll_transmit(now()));
        }
        let Some(rest) = &mut self.unwritten else {
            return Poll::Pending;
        };
        let outcome = ready!(poll_write_out(&mut self.transport, rest, cx));
        self.unwritten = None;
        self.link.0.drive(|control| match outcome {
            Ok(()) => control.line_mut().handle_written(),
            Err(error) => control.line_mut().handle_transport_error(error),
        });
        Poll::Ready(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.link.0.drive(|control| control.poll_timeout());
        ready!(self.timer.poll_due(due.map(Instant::from_std), cx));
        self.link.0.drive(|control| control.handle_timeout(now()));
        Poll::Ready(())
    }
}

/// Writes all that is left of a message, and flushes it.
fn poll_write_out(
    transport: &mut BoxTransport,
    rest: &mut Bytes,
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<()>> {
    while !rest.is_empty() {
        let count = ready!(transport.as_mut().poll_write(cx, rest))?;
        if count == 0 {
            return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
        }
        rest.advance(count);
    }
    transport.as_mut().poll_flush(cx)
}

/// Steps before other tasks get a turn.
const STEPS_PER_POLL: usize = 32;

/// Bytes of one read: messages are small and rare.
const READ_SIZE: usize = 4 * 1024;
