//! A transport in memory with a rate and a distance, for a paused clock.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// What a pipe is like, in each direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Road {
    /// Bytes that wait for their departure at most; more are not taken from the writer.
    pub(crate) buffer: usize,
    /// Bytes that depart in a [`TICK`].
    pub(crate) per_tick: usize,
    /// From departure to arrival.
    pub(crate) distance: Duration,
}

/// The grain of tokio's timers.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// One end.
#[derive(Debug)]
pub(crate) struct Pipe {
    incoming: Arc<Mutex<Lane>>,
    outgoing: Arc<Mutex<Lane>>,
    /// Wakes the reader at the next arrival or departure.
    read_alarm: Pin<Box<Sleep>>,
    write_alarm: Pin<Box<Sleep>>,
}

impl Pipe {
    /// Both ends.
    pub(crate) fn pair(road: Road) -> (Self, Self) {
        let there = Arc::new(Mutex::new(Lane::new(road)));
        let back = Arc::new(Mutex::new(Lane::new(road)));
        let end = |incoming: &Arc<Mutex<Lane>>, outgoing: &Arc<Mutex<Lane>>| Self {
            incoming: Arc::clone(incoming),
            outgoing: Arc::clone(outgoing),
            read_alarm: Box::pin(sleep(Duration::ZERO)),
            write_alarm: Box::pin(sleep(Duration::ZERO)),
        };
        (end(&back, &there), end(&there, &back))
    }
}

/// One direction.
#[derive(Debug)]
struct Lane {
    road: Road,
    waiting: BytesMut,
    /// Bytes under way, with their times of arrival.
    flying: VecDeque<(Instant, Bytes)>,
    moved: Instant,
    reader: Option<Waker>,
}

impl Lane {
    fn new(road: Road) -> Self {
        Self {
            road,
            waiting: BytesMut::new(),
            flying: VecDeque::new(),
            moved: Instant::now(),
            reader: None,
        }
    }

    /// Lets depart what the time since the last call allows.
    fn advance(&mut self) {
        let now = Instant::now();
        let ticks = (now - self.moved).as_millis();
        self.moved = now;
        let allowed = self
            .road
            .per_tick
            .saturating_mul(usize::try_from(ticks).unwrap());
        let count = allowed.min(self.waiting.len());
        if count > 0 {
            let departed = self.waiting.split_to(count).freeze();
            self.flying.push_back((now + self.road.distance, departed));
        }
    }

    /// When the reader is to look again: at the next arrival, or the next departure, as nobody else sees to that.
    fn next_event(&self) -> Option<Instant> {
        let arrival = self.flying.front().map(|(arrival, _)| *arrival);
        let departure = (!self.waiting.is_empty()).then(|| Instant::now() + TICK);
        arrival.into_iter().chain(departure).min()
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut lane = this.incoming.lock().unwrap();
        lane.advance();
        let now = Instant::now();
        let before = buf.filled().len();
        while let Some((arrival, bytes)) = lane.flying.front_mut()
            && *arrival <= now
            && buf.remaining() > 0
        {
            let count = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..count]);
            bytes.advance(count);
            if bytes.is_empty() {
                lane.flying.pop_front();
            }
        }
        if buf.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        lane.reader = Some(cx.waker().clone());
        if let Some(event) = lane.next_event() {
            this.read_alarm.as_mut().reset(event);
            let _ = this.read_alarm.as_mut().poll(cx);
        }
        Poll::Pending
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut lane = this.outgoing.lock().unwrap();
        lane.advance();
        let count = (lane.road.buffer - lane.waiting.len()).min(data.len());
        if count == 0 {
            this.write_alarm.as_mut().reset(Instant::now() + TICK);
            let _ = this.write_alarm.as_mut().poll(cx);
            return Poll::Pending;
        }
        lane.waiting.extend_from_slice(&data[..count]);
        if let Some(reader) = lane.reader.take() {
            drop(lane);
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
