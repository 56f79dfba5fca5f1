//! What the handles and the driver of a link share: the session behind one short-held lock, and who waits.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::addr::Addr;
use crate::config::Config;
use crate::driver::Driver;
use crate::error::{CloseReason, PingError};
use crate::frame::StreamId;
use crate::ids::IdMap;
use crate::machine::Machine;
use crate::session::Event;
use crate::sync::Mutex;

#[cfg(all(test, revdial_loom))]
mod orders;

/// One link.
#[derive(Debug)]
pub(crate) struct Link {
    state: Mutex<State>,
    /// The newest answered ping.
    pong: watch::Sender<Pong>,
    closed: watch::Sender<Option<CloseReason>>,
    local_addr: Option<SocketAddr>,
    peer_addr: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pong {
    nonce: u32,
    round_trip: Duration,
}

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) session: Machine,
    slots: IdMap<Box<Slot>>,
    acceptor: Option<Waker>,
    driver: Option<Parked>,
}

/// A driver that waits for the transport, for us, or for a time.
#[derive(Debug)]
struct Parked {
    waker: Waker,
    timeout: Option<std::time::Instant>,
    inlet: Inlet,
    outlet: Outlet,
}

/// Says whether the driver reads the transport.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Inlet {
    Open,
    /// What has arrived is to be read from the connections first.
    Paused,
}

/// What the driver does next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Close the transport: the session has ended.
    Closed(CloseReason),
    /// Wait for the transport, for us, or for a time.
    Wait(Option<std::time::Instant>),
    /// Go on.
    Work(Work),
}

/// What there is to do for the driver, besides reading.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Work {
    /// The session has ended.
    Ended,
    None,
    /// The session has frames that may wait for others.
    Notices,
    /// The session has frames.
    Output,
}

/// Says whether the driver has a use for further frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outlet {
    /// The transport has yet to take those that it got.
    Blocked,
    Open,
}

/// Who waits for a connection, and how long they may.
#[derive(Debug, Default)]
struct Slot {
    read: SlotSide,
    write: SlotSide,
}

#[derive(Debug, Default)]
pub(crate) struct SlotSide {
    waker: Option<Waker>,
    pub(crate) deadline: Option<Instant>,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Read,
    Write,
}

impl Link {
    /// Gives the session a transport, and starts its driver on the current runtime.
    pub(crate) fn spawn<T>(session: Machine, transport: T, config: &Config) -> Arc<Self>
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let close_timeout = config.close_timeout;
        let largest_read = session.largest_read();
        let link = Arc::new(Self::new(session, config));
        // The task ends by itself: the session ends at the latest when the last handle is dropped, and what follows
        // is bounded by `close_timeout`.
        tokio::spawn(
            Driver::new(
                Box::pin(transport),
                Arc::clone(&link),
                close_timeout,
                largest_read,
            )
            .run(),
        );
        link
    }

    /// A link without a driver.
    fn new(session: Machine, config: &Config) -> Self {
        Self {
            pong: watch::Sender::default(),
            closed: watch::Sender::default(),
            local_addr: config.local_addr,
            peer_addr: config.peer_addr,
            state: Mutex::new(State {
                session,
                slots: IdMap::default(),
                acceptor: None,
                driver: None,
            }),
        }
    }

    /// Does something with the state, then wakes whom it concerns, outside the lock.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut State, &mut WakeList) -> R) -> R {
        let mut wakes = WakeList::default();
        let result = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let result = act(&mut state, &mut wakes);
            state.settle(&mut wakes);
            result
        };
        wakes.fire(self);
        result
    }

    /// What a driver that is busy does next.
    pub(crate) fn next_step(&self) -> Next {
        self.with(|state, _| match state.session.closed() {
            Some(reason) => Next::Closed(reason.clone()),
            None => Next::Work(state.work()),
        })
    }

    /// Parks the driver after its `report`, unless there is something for it to do.
    pub(crate) fn park(
        &self,
        inlet: Inlet,
        outlet: Outlet,
        cx: &Context<'_>,
        report: impl FnOnce(&mut Machine),
    ) -> Next {
        self.with(|state, _| {
            report(&mut state.session);
            if let Some(reason) = state.session.closed() {
                return Next::Closed(reason.clone());
            }
            if state.concerns_driver(inlet, outlet) {
                return Next::Work(Work::Output);
            }
            let timeout = state.session.poll_timeout();
            state.driver = Some(Parked {
                waker: cx.waker().clone(),
                timeout,
                inlet,
                outlet,
            });
            Next::Wait(timeout)
        })
    }

    /// Measures the round trip time.
    pub(crate) async fn ping(&self) -> Result<Duration, PingError> {
        let mut pong = self.pong.subscribe();
        let asked = self.with(|state, _| state.session.ping());
        let asked = asked.ok_or(PingError::Unsupported)?;
        let mut answered =
            pin!(pong.wait_for(|pong| asked.wrapping_sub(pong.nonce).cast_signed() <= 0));
        let mut closed = pin!(self.closed());
        poll_fn(|cx| {
            if let Poll::Ready(reason) = closed.as_mut().poll(cx) {
                return Poll::Ready(Err(PingError::Closed(reason)));
            }
            match answered.as_mut().poll(cx) {
                Poll::Ready(Ok(pong)) => Poll::Ready(Ok(pong.round_trip)),
                // The sender is in `self`: it cannot be gone.
                Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Waits for the end of the session.
    pub(crate) async fn closed(&self) -> CloseReason {
        let mut closed = self.closed.subscribe();
        let reason = closed.wait_for(Option::is_some).await;
        // The sender is in `self`: it cannot be gone.
        reason
            .ok()
            .and_then(|reason| reason.clone())
            .unwrap_or(CloseReason::Aborted)
    }

    /// Ends the session.
    pub(crate) fn end(&self, reason: CloseReason) {
        self.with(|state, _| state.session.end(reason));
    }

    /// Notes that the last endpoint handle is dropped.
    pub(crate) fn release_endpoint(&self) {
        self.with(|state, _| state.session.release_endpoint(now()));
    }

    /// Says whether no further stream can be opened.
    pub(crate) fn is_leaving(&self) -> bool {
        self.with(|state, _| state.session.is_leaving())
    }

    pub(crate) fn local_addr(&self, stream: Option<StreamId>) -> Addr {
        Addr::new(self.local_addr, stream)
    }

    pub(crate) fn peer_addr(&self, stream: Option<StreamId>) -> Addr {
        Addr::new(self.peer_addr, stream)
    }
}

impl State {
    /// Takes the oldest incoming stream.
    pub(crate) fn poll_accept(
        &mut self,
        cx: &Context<'_>,
        wakes: &mut WakeList,
    ) -> Poll<Result<StreamId, CloseReason>> {
        if let Some(id) = self.session.accept() {
            return Poll::Ready(Ok(id));
        }
        if let Some(reason) = self.session.closed() {
            return Poll::Ready(Err(reason.clone()));
        }
        wakes.discard(self.acceptor.replace(cx.waker().clone()));
        Poll::Pending
    }

    /// Keeps the waker of one direction until its next event.
    pub(crate) fn register(
        &mut self,
        id: StreamId,
        side: Side,
        cx: &Context<'_>,
        wakes: &mut WakeList,
    ) {
        let slot = self.slot(id, side);
        if !slot
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            wakes.discard(slot.waker.replace(cx.waker().clone()));
        }
    }

    /// Wakes whoever waits for one direction.
    pub(crate) fn wake(&mut self, id: StreamId, side: Side, wakes: &mut WakeList) {
        wakes.push(self.slot(id, side).waker.take());
    }

    /// The deadline of one direction.
    pub(crate) fn deadline(&self, id: StreamId, side: Side) -> Option<Instant> {
        let slot = self.slots.get(&id)?;
        match side {
            Side::Read => slot.read.deadline,
            Side::Write => slot.write.deadline,
        }
    }

    /// The waiting place of one direction.
    pub(crate) fn slot(&mut self, id: StreamId, side: Side) -> &mut SlotSide {
        let slot = self.slots.entry(id).or_default();
        match side {
            Side::Read => &mut slot.read,
            Side::Write => &mut slot.write,
        }
    }

    /// Forgets the waiting places of a connection whose handle is dropped.
    pub(crate) fn forget(&mut self, id: StreamId, wakes: &mut WakeList) {
        if let Some(slot) = self.slots.remove(&id) {
            wakes.discard(slot.read.waker);
            wakes.discard(slot.write.waker);
        }
    }

    /// Collects whom the session's events concern, and the driver if it has something to do.
    fn settle(&mut self, wakes: &mut WakeList) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Incoming => wakes.push(self.acceptor.take()),
                Event::Readable(id) => self.wake_event(id, Side::Read, wakes),
                Event::Writable(id) => self.wake_event(id, Side::Write, wakes),
                Event::Pong { nonce, round_trip } => wakes.pong = Some(Pong { nonce, round_trip }),
                Event::Ended => self.wake_everybody(wakes),
            }
        }
        let due = self.driver.as_ref().is_some_and(|parked| {
            let sooner = |timeout| parked.timeout.is_none_or(|parked| timeout < parked);
            self.concerns_driver(parked.inlet, parked.outlet)
                || self.session.poll_timeout().is_some_and(sooner)
        });
        if due {
            wakes.push(self.driver.take().map(|parked| parked.waker));
        }
    }

    /// Says whether the transport is to be read.
    pub(crate) fn inlet(&self) -> Inlet {
        if self.session.wants_input() {
            Inlet::Open
        } else {
            Inlet::Paused
        }
    }

    /// What there is to do for the driver.
    pub(crate) fn work(&self) -> Work {
        if self.session.closed().is_some() {
            Work::Ended
        } else if !self.session.has_output() {
            Work::None
        } else if self.session.may_wait() {
            Work::Notices
        } else {
            Work::Output
        }
    }

    fn concerns_driver(&self, inlet: Inlet, outlet: Outlet) -> bool {
        let input = inlet == Inlet::Paused && self.inlet() == Inlet::Open;
        let output = outlet == Outlet::Open && self.session.has_output();
        input || output || self.session.closed().is_some()
    }

    fn wake_event(&mut self, id: StreamId, side: Side, wakes: &mut WakeList) {
        if let Some(slot) = self.slots.get_mut(&id) {
            wakes.push(match side {
                Side::Read => slot.read.waker.take(),
                Side::Write => slot.write.waker.take(),
            });
        }
    }

    fn wake_everybody(&mut self, wakes: &mut WakeList) {
        for slot in self.slots.values_mut() {
            wakes.push(slot.read.waker.take());
            wakes.push(slot.write.waker.take());
        }
        wakes.push(self.acceptor.take());
        wakes.closed = self.session.closed().cloned();
    }
}

/// What is to be done after the lock is released: wakers may run anything, even one of our own methods.
#[derive(Debug, Default)]
pub(crate) struct WakeList {
    first: Option<Waker>,
    more: Vec<Waker>,
    discarded: Vec<Waker>,
    pong: Option<Pong>,
    closed: Option<CloseReason>,
}

impl WakeList {
    /// Wakes later.
    fn push(&mut self, waker: Option<Waker>) {
        if self.first.is_none() {
            self.first = waker;
        } else {
            self.more.extend(waker);
        }
    }

    /// Drops later.
    fn discard(&mut self, waker: Option<Waker>) {
        self.discarded.extend(waker);
    }

    fn fire(self, link: &Link) {
        if let Some(pong) = self.pong {
            link.pong.send_replace(pong);
        }
        if let Some(reason) = self.closed {
            link.closed.send_replace(Some(reason));
        }
        let mut panic = None;
        for waker in self.first.into_iter().chain(self.more) {
            // A waker that panics must not keep the others from their wake.
            if let Err(thrown) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
                panic = Some(thrown);
            }
        }
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

/// The time, as the session takes it. Tests that pause tokio's clock pause this one.
pub(crate) fn now() -> std::time::Instant {
    Instant::now().into_std()
}
