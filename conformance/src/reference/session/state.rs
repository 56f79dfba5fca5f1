use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::task::{Context, Poll, Waker};

use super::Flaw;
use crate::mux::{FrameKind, Side};
use crate::reference::yamux::encode;

/// A session without its transport.
pub(super) struct State {
    pub(super) flaw: Flaw,
    pub(super) side: Side,
    pub(super) streams: BTreeMap<u32, Channel>,
    pub(super) next_id: u32,
    pub(super) opened: usize,
    pub(super) abandoned: VecDeque<u32>,
    pub(super) backlog: VecDeque<u32>,
    pub(super) acceptors: Vec<Waker>,
    /// Frames without a body: they go before all others.
    pub(super) control: VecDeque<u8>,
    /// The streams that have something to send, in turn.
    pub(super) turn: VecDeque<u32>,
    /// Whose frame the transport is taking.
    pub(super) in_flight: Option<u32>,
    pub(super) input: Vec<u8>,
    pub(super) body: Option<(u32, usize)>,
    pub(super) pings: u32,
    pub(super) pongs: u32,
    pub(super) pinger: Option<Waker>,
    pub(super) leaving: bool,
    pub(super) ended: Option<ErrorKind>,
    pub(super) driver: Option<Waker>,
    pub(super) remembered: Vec<[u64; 8]>,
}

/// One stream of it.
#[derive(Default)]
pub(super) struct Channel {
    pub(super) inbox: VecDeque<u8>,
    pub(super) frames: usize,
    pub(super) outbox: VecDeque<u8>,
    pub(super) pieces: VecDeque<usize>,
    pub(super) window: usize,
    pub(super) consumed: usize,
    pub(super) answered: bool,
    pub(super) announced: bool,
    pub(super) finished: bool,
    pub(super) end_sent: bool,
    pub(super) peer_finished: bool,
    pub(super) reset: bool,
    pub(super) orphan: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) _spare: Vec<u8>,
}

impl Channel {
    pub(super) fn wake(&mut self, wakes: &mut Vec<Waker>) {
        wakes.extend(self.reader.take());
        wakes.extend(self.writer.take());
    }
}

impl State {
    pub(super) fn new(flaw: Flaw, side: Side) -> Self {
        let even = side == Side::Server && flaw != Flaw::SameIdsOnBothSides;
        Self {
            flaw,
            side,
            streams: BTreeMap::new(),
            next_id: if even { 2 } else { 1 },
            opened: 0,
            abandoned: VecDeque::new(),
            backlog: VecDeque::new(),
            acceptors: Vec::new(),
            control: VecDeque::new(),
            turn: VecDeque::new(),
            in_flight: None,
            input: Vec::new(),
            body: None,
            pings: 0,
            pongs: 0,
            pinger: None,
            leaving: false,
            ended: None,
            driver: None,
            remembered: Vec::new(),
        }
    }

    pub(super) fn park_driver(&mut self, cx: &Context<'_>) {
        self.driver = Some(cx.waker().clone());
    }

    /// Whether the session is over and everything is said.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// Whether nothing is to be read from the transport for the time being: a flaw.
    pub(super) fn is_deaf(&self) -> bool {
        let full = |channel: &Channel| channel.frames > 8;
        self.flaw == Flaw::SharedInbox && self.streams.values().any(full)
    }

    /// Whether no stream has ever had a word from the peer.
    pub(super) fn is_silent(&self) -> bool {
        self.streams.values().all(|channel| channel.consumed == 0)
    }

    /// Ends the session and every stream in it.
    pub(super) fn end(&mut self, why: ErrorKind, wakes: &mut Vec<Waker>) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(why);
        if self.flaw != Flaw::CloseWakesNobody || why != ErrorKind::NotConnected {
            for channel in self.streams.values_mut() {
                channel.wake(wakes);
            }
        }
        wakes.append(&mut self.acceptors);
        wakes.extend(self.pinger.take());
        wakes.extend(self.driver.take());
    }

    /// Queues a frame without a body.
    pub(super) fn control(&mut self, frame: &[u8], wakes: &mut Vec<Waker>) {
        self.control.extend(frame);
        wakes.extend(self.driver.take());
    }

    pub(super) fn ours(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.side == Side::Client)
    }

    pub(super) fn count(&self, ours: bool) -> usize {
        let counts = |(id, channel): &(&u32, &Channel)| self.ours(**id) == ours && !channel.orphan;
        self.streams.iter().filter(counts).count()
    }

    /// The streams that one side opens at a time.
    pub(super) fn most_streams(&self) -> usize {
        if self.flaw == Flaw::NoStreamLimit {
            usize::MAX
        } else {
            STREAMS
        }
    }

    /// Opens a stream.
    pub(super) fn open(&mut self, wakes: &mut Vec<Waker>) -> io::Result<u32> {
        if let Some(why) = self.ended {
            return Err(why.into());
        }
        let count = if self.flaw == Flaw::FinishedStreamsCount {
            self.opened
        } else {
            self.count(true)
        };
        self.opened += 1;
        if count >= self.most_streams() {
            if self.flaw == Flaw::OneTooManyKills {
                self.end(ErrorKind::ConnectionAborted, wakes);
            }
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let used_up = self.flaw == Flaw::IdsRunOut && self.next_id > u32::from(u16::MAX);
        if self.leaving || used_up {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let id = self.next_id;
        self.next_id += 2;
        let lazy = self.flaw == Flaw::LazyOpen;
        self.streams.insert(id, self.channel(lazy));
        if !lazy {
            self.announce(id, wakes);
        }
        Ok(id)
    }

    pub(super) fn announce(&mut self, id: u32, wakes: &mut Vec<Waker>) {
        if let Some(channel) = self.streams.get_mut(&id) {
            channel.announced = true;
        }
        self.control(&encode(FrameKind::Open, id, 0), wakes);
    }

    pub(super) fn channel(&self, answered: bool) -> Channel {
        let size = if self.flaw == Flaw::StreamBuffers {
            64 * 1024
        } else {
            0
        };
        Channel {
            window: WINDOW,
            answered,
            _spare: Vec::with_capacity(size),
            ..Channel::default()
        }
    }

    /// Waits for the answer to our opening: the id of the stream that was opened.
    pub(super) fn poll_opened(&mut self, id: u32, cx: &Context<'_>) -> Poll<io::Result<u32>> {
        if let Some(why) = self.ended {
            return Poll::Ready(Err(why.into()));
        }
        if self.flaw == Flaw::AbandonedDialTakesAnswer {
            let answered = |id: &u32| self.streams.get(id).is_some_and(|c| c.answered);
            if let Some(strange) = self.abandoned.front().copied().filter(answered) {
                self.abandoned.pop_front();
                return Poll::Ready(Ok(strange));
            }
        }
        match self.streams.get_mut(&id) {
            Some(channel) if channel.answered => Poll::Ready(Ok(id)),
            Some(channel) if !channel.reset => {
                channel.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(Err(ErrorKind::ConnectionRefused.into())),
        }
    }

    /// Takes the oldest stream that the peer has opened.
    pub(super) fn poll_accept(&mut self, cx: &Context<'_>) -> Poll<io::Result<Option<u32>>> {
        if let Some(id) = self.backlog.pop_front() {
            return Poll::Ready(Ok(Some(id)));
        }
        if self.ended.is_some() {
            return Poll::Ready(Ok(None));
        }
        self.acceptors.push(cx.waker().clone());
        Poll::Pending
    }

    /// Asks the peer for a sign of life, and returns its number.
    pub(super) fn ping(&mut self, wakes: &mut Vec<Waker>) -> u32 {
        self.pings += 1;
        self.control(&encode(FrameKind::Ping, 0, self.pings), wakes);
        self.pings
    }

    pub(super) fn poll_pong(&mut self, number: u32, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.pongs >= number {
            return Poll::Ready(Ok(()));
        }
        if let Some(why) = self.ended {
            return Poll::Ready(Err(why.into()));
        }
        self.pinger = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The streams that one side opens at a time.
pub(super) const STREAMS: usize = 64;

/// The bytes of a stream that its reader has yet to ask for: yamux gives as many to each.
pub(super) const WINDOW: usize = 256 * 1024;

/// The bytes of a stream that wait for the transport.
pub(super) const OUTBOX: usize = 64 * 1024;
