//! Two machines, the two wires between them, and an oracle that knows what each operation may answer.
//!
//! The oracle counts bytes and remembers which ends were sent, flushed and heard. From that alone it says what a read,
//! a write or a flush may return, and who is owed a wake: it shares no code with the machine. The model explores every
//! order of a few operations with it, the random test long scripts.

use super::*;
use crate::frame::HEADER_LEN;

mod check;
mod finish;
mod wire;

use wire::Wire;

/// One thing that may happen.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// The dialer opens a stream.
    Open,
    /// The listener takes one.
    Accept,
    /// A side does something to a stream; streams count from 0 in the order of their opening.
    Stream {
        side: usize,
        stream: usize,
        verb: Verb,
    },
    Ping(usize),
    /// Milliseconds pass.
    Wait(u64),
    /// The last endpoint handle of a side is dropped.
    Leave(usize),
    /// A side closes the link.
    End(usize),
    /// A side hears the end of the transport.
    Cut(usize),
    /// A side makes a frame with `max` bytes of payload at most.
    Transmit {
        side: usize,
        max: usize,
    },
    /// The transport of a side has flushed every frame.
    Flushed(usize),
    /// That many bytes arrive that a side has sent.
    Deliver {
        from: usize,
        bytes: usize,
    },
}

/// What the holder of a stream may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verb {
    /// Wait for the confirmation of the dial.
    Opened,
    Write(usize),
    Read(usize),
    Flush,
    Shutdown,
    Close,
    Reset,
    StopReading,
    StopWriting,
    Release,
}

/// What a holder waits for.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Waiting {
    opened: bool,
    read: bool,
    write: bool,
    flush: bool,
}

/// One side of a stream, as its holder and the wire saw it.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Party {
    pub(super) held: bool,
    /// The handle was held once.
    known: bool,
    /// `close`, `reset` or `stop_writing` was called: nothing more can be read or written here.
    ended: bool,
    /// Nobody reads any more.
    deaf: bool,
    /// The writer promised an end.
    finishing: bool,
    /// The reader saw the end.
    seen_end: bool,
    /// Bytes that the writer wrote, that left in frames, that were flushed, that reached the other session.
    written: u64,
    framed: u64,
    flushed: u64,
    arrived: u64,
    /// Bytes of the other side that the reader got.
    read: u64,
    fin: Mark,
    rst: Mark,
    /// SYN of the dialer, ACK of the listener.
    hello: Mark,
    waiting: Waiting,
}

/// How far a flag has come.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Mark {
    #[default]
    No,
    Framed,
    Arrived,
}

/// One stream.
#[derive(Clone, Debug, Hash)]
pub(super) struct Track {
    pub(super) id: StreamId,
    pub(super) parties: [Party; 2],
    /// FIN frames that were flushed, by side.
    fin_flushed: [bool; 2],
}

/// One side's link.
#[derive(Clone, Debug, Default, Hash)]
struct Link {
    left: bool,
    ended: bool,
    cut: bool,
    farewell: Mark,
    /// Frames that were made.
    made: u64,
    awaits_stream: bool,
}

/// Everything.
#[derive(Clone)]
pub(super) struct World {
    pub(super) sides: [Session; 2],
    wires: [Wire; 2],
    pub(super) tracks: Vec<Track>,
    links: [Link; 2],
    now: Instant,
    /// The window of a fresh stream.
    window: u32,
    send_buffer: u64,
}

/// The byte at a place of the stream that a side sends: a reader can tell a lost or doubled byte.
fn byte(side: usize, at: u64) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()[0] ^ [0, 0x55][side]
}

impl World {
    /// Two fresh sessions; `window` is at most that of the specification.
    #[expect(
        clippy::disallowed_methods,
        reason = "where the clock begins does not matter"
    )]
    pub(super) fn new(window: u32, config: &Config) -> Self {
        let now = Instant::now();
        let session = |role| Session::new(role, config.clone(), now, 0);
        Self {
            sides: [session(Role::Dialer), session(Role::Listener)],
            wires: [Wire::default(), Wire::default()],
            tracks: Vec::new(),
            links: [Link::default(), Link::default()],
            now,
            window,
            send_buffer: config.send_buffer as u64,
        }
    }

    /// Does one thing and checks everything.
    pub(super) fn apply(&mut self, op: Op) {
        match op {
            Op::Open => self.open(),
            Op::Accept => self.accept(),
            Op::Stream { side, stream, verb } => {
                if self.is_held(side, stream) {
                    self.act(side, stream, verb);
                }
            }
            Op::Ping(side) => {
                self.sides[side].ping();
            }
            Op::Wait(millis) => {
                self.now += Duration::from_millis(millis);
                for session in &mut self.sides {
                    session.handle_timeout(self.now);
                }
            }
            Op::Leave(side) => self.leave(side),
            Op::End(side) => {
                self.links[side].ended = true;
                self.sides[side].end(CloseReason::Local);
            }
            Op::Cut(side) => {
                self.links[side].cut = true;
                self.sides[side].handle_eof();
            }
            Op::Transmit { side, max } => {
                self.transmit(side, max);
            }
            Op::Flushed(side) => self.flushed(side),
            Op::Deliver { from, bytes } => self.deliver(from, bytes),
        }
        self.drain_events();
        self.check();
    }

    pub(super) fn is_held(&self, side: usize, stream: usize) -> bool {
        let track = self.tracks.get(stream);
        track.is_some_and(|track| track.parties[side].held)
    }

    /// Says whether a program can come to do this.
    pub(super) fn is_possible(&self, op: Op) -> bool {
        let dials_to_itself = matches!(
            op,
            Op::Stream {
                side: 1,
                verb: Verb::Opened,
                ..
            }
        );
        let deserted = (matches!(op, Op::Open) && self.links[0].left)
            || (matches!(op, Op::Accept) && self.links[1].left);
        !dials_to_itself && !deserted
    }

    pub(super) fn is_closed(&self, side: usize) -> bool {
        self.sides[side].closed().is_some()
    }

    /// Says whether nothing more happens by itself.
    pub(super) fn is_quiet(&self) -> bool {
        (0..2).all(|side| {
            let dead = self.is_closed(1 - side);
            (self.wires[side].is_empty() || dead) && !self.sides[side].has_output()
        })
    }

    /// Bytes until the end of the frame that arrives next; `None` if none is under way.
    pub(super) fn frame_under_way(&self, from: usize) -> Option<usize> {
        self.wires[from].first_len()
    }

    /// Frames under way.
    pub(super) fn frames_under_way(&self, from: usize) -> usize {
        self.wires[from].len()
    }

    /// Frames that were made and not flushed.
    pub(super) fn has_unflushed(&self, side: usize) -> bool {
        self.sides[side].tickets.flushed < self.links[side].made
    }

    fn open(&mut self) {
        let opened = self.sides[0].open();
        let farewell = self.links[1].farewell == Mark::Arrived;
        let Ok(id) = opened else {
            assert!(
                self.is_closed(0) || farewell,
                "a dial failed for no reason: {opened:?}"
            );
            return;
        };
        assert!(!farewell, "a dial to a peer that leaves");
        self.shrink(0, id);
        let mut track = Track {
            id,
            parties: [Party::default(), Party::default()],
            fin_flushed: [false; 2],
        };
        track.parties[0].held = true;
        track.parties[0].known = true;
        self.tracks.push(track);
    }

    fn accept(&mut self) {
        match self.sides[1].accept() {
            Some(id) => {
                let track = self.tracks.iter_mut().find(|track| track.id == id).unwrap();
                let party = &mut track.parties[1];
                assert!(!party.known, "a stream was accepted twice");
                party.held = true;
                party.known = true;
            }
            None => self.links[1].awaits_stream = !self.is_closed(1),
        }
    }

    fn leave(&mut self, side: usize) {
        self.links[side].left = true;
        self.sides[side].release_endpoint(self.now);
        if side == 1 {
            for track in &mut self.tracks {
                let party = &mut track.parties[1];
                if !party.known && self.sides[1].streams.get(track.id).is_none() {
                    party.ended = true;
                }
            }
        }
    }

    /// Makes a fresh stream's windows small.
    fn shrink(&mut self, side: usize, id: StreamId) {
        if let Some(stream) = self.sides[side].streams.get_mut(id)
            && stream.send.state() == SendState::Open
            && self.window != INITIAL_WINDOW
        {
            stream.send.shrink(self.window);
            stream.recv.shrink(self.window);
        }
    }

    fn act(&mut self, side: usize, stream: usize, verb: Verb) {
        match verb {
            Verb::Opened => self.opened(stream),
            Verb::Write(len) => self.write(side, stream, len),
            Verb::Read(_) if self.tracks[stream].parties[side].deaf => {}
            Verb::Read(max) => self.read(side, stream, max),
            Verb::Flush | Verb::Shutdown => self.flush(side, stream, verb),
            Verb::Close | Verb::Reset => {
                let failure = self.failure(side, stream);
                let track = &mut self.tracks[stream];
                if verb == Verb::Close {
                    track.parties[side].finishing |= !failure.any();
                    self.sides[side].close(track.id);
                } else {
                    self.sides[side].reset(track.id, CODE);
                }
                track.parties[side].ended = true;
            }
            Verb::StopReading => {
                self.tracks[stream].parties[side].deaf = true;
                self.sides[side].stop_reading(self.tracks[stream].id);
            }
            Verb::StopWriting => {
                let track = &mut self.tracks[stream];
                let over = track.parties[1 - side].rst == Mark::Arrived;
                let party = &mut track.parties[side];
                party.ended |= party.fin == Mark::No && !over;
                self.sides[side].stop_writing(track.id);
            }
            Verb::Release => {
                let party = &mut self.tracks[stream].parties[side];
                party.held = false;
                party.waiting = Waiting::default();
                self.sides[side].release(self.tracks[stream].id, self.now);
            }
        }
    }

    fn opened(&mut self, stream: usize) {
        let outcome = self.sides[0].poll_opened(self.tracks[stream].id);
        let confirmed = self.tracks[stream].parties[1].hello == Mark::Arrived;
        let refused = self.tracks[stream].parties[1].rst == Mark::Arrived;
        match outcome {
            Poll::Ready(Ok(())) => assert!(confirmed, "confirmed by nobody"),
            Poll::Ready(Err(DialError::Refused { .. })) => assert!(refused && !confirmed),
            Poll::Ready(Err(DialError::Closed(_))) => {
                assert!(self.is_closed(0) || self.tracks[stream].parties[0].ended);
            }
            Poll::Ready(Err(other)) => panic!("{other:?}"),
            Poll::Pending => self.tracks[stream].parties[0].waiting.opened = true,
        }
    }

    fn write(&mut self, side: usize, stream: usize, len: usize) {
        let from = self.tracks[stream].parties[side].written;
        let data: Vec<u8> = (from..from + len as u64).map(|at| byte(side, at)).collect();
        let outcome = self.sides[side].write(self.tracks[stream].id, &data);
        let failure = self.failure(side, stream);
        let party = &mut self.tracks[stream].parties[side];
        match outcome {
            Poll::Ready(Ok(count)) => {
                assert!(
                    !failure.any() && !party.finishing,
                    "a write that nobody can hear"
                );
                assert!(count > 0 && count <= len, "{count} of {len} bytes written");
                party.written += count as u64;
                assert!(party.written - party.framed <= self.send_buffer);
            }
            Poll::Ready(Err(ConnError::Shutdown)) => assert!(party.finishing),
            Poll::Ready(Err(error)) => failure.expect(&error),
            Poll::Pending => party.waiting.write = true,
        }
    }

    fn read(&mut self, side: usize, stream: usize, max: usize) {
        let outcome = self.sides[side].read_chunk(self.tracks[stream].id, max);
        let failure = self.failure(side, stream);
        let (from, to) = self.tracks[stream].direction(1 - side);
        match outcome {
            Poll::Ready(Ok(chunk)) => {
                assert!(!to.ended, "read after the stream was given up");
                if chunk.is_empty() {
                    assert_eq!(from.fin, Mark::Arrived, "an end that nobody sent");
                    assert_eq!(to.read, from.written, "an end before all data");
                    to.seen_end = true;
                }
                assert!(chunk.len() <= max);
                assert!(to.read + chunk.len() as u64 <= from.arrived);
                for received in chunk {
                    assert_eq!(received, byte(1 - side, to.read), "at {}", to.read);
                    to.read += 1;
                }
            }
            Poll::Ready(Err(error)) => {
                failure.expect(&error);
                if !to.ended {
                    assert!(!to.seen_end, "{error:?} after an end");
                    assert_ne!(from.fin, Mark::Arrived, "{error:?} for an end");
                    assert_eq!(to.read, from.arrived, "{error:?} before all data");
                }
            }
            Poll::Pending => to.waiting.read = true,
        }
    }

    fn flush(&mut self, side: usize, stream: usize, verb: Verb) {
        let id = self.tracks[stream].id;
        let failure = self.failure(side, stream);
        let outcome = if verb == Verb::Shutdown {
            // Who shuts down has given up its write.
            self.tracks[stream].parties[side].waiting.write = false;
            self.tracks[stream].parties[side].finishing |= !failure.any();
            self.sides[side].shutdown(id)
        } else {
            self.sides[side].flush(id)
        };
        let done = self.tracks[stream].is_flushed(side);
        match outcome {
            Poll::Ready(Ok(())) => assert!(done, "a flush before its time"),
            Poll::Ready(Err(error)) => {
                failure.expect(&error);
                let owes_end =
                    verb == Verb::Shutdown && !self.tracks[stream].parties[side].finishing;
                assert!(!done || owes_end || matches!(error, ConnError::Closed));
            }
            Poll::Pending => self.tracks[stream].parties[side].waiting.flush = true,
        }
    }

    /// What can fail for the holder of a stream.
    fn failure(&self, side: usize, stream: usize) -> Failure {
        let track = &self.tracks[stream];
        Failure {
            ended: track.parties[side].ended,
            reset: track.parties[1 - side].rst == Mark::Arrived,
            link: self.is_closed(side),
        }
    }

    fn drain_events(&mut self) {
        for side in 0..2 {
            let mut events = 0;
            while let Some(event) = self.sides[side].poll_event() {
                events += 1;
                self.wake(side, event);
            }
            assert!(events <= 4 + 2 * self.tracks.len(), "events without bound");
        }
    }

    fn wake(&mut self, side: usize, event: Event) {
        match event {
            Event::Incoming => self.links[side].awaits_stream = false,
            Event::Readable(id) => self.party(side, id).waiting.read = false,
            Event::Writable(id) => {
                let waiting = &mut self.party(side, id).waiting;
                *waiting = Waiting {
                    read: waiting.read,
                    ..Waiting::default()
                };
            }
            Event::Pong { .. } => {}
            Event::Ended => {
                self.links[side].awaits_stream = false;
                for track in &mut self.tracks {
                    track.parties[side].waiting = Waiting::default();
                }
            }
        }
    }
}

impl Track {
    /// Who writes and who reads what a side sends.
    fn direction(&mut self, writer: usize) -> (&Party, &mut Party) {
        let [dialer, listener] = &mut self.parties;
        if writer == 0 {
            (dialer, listener)
        } else {
            (listener, dialer)
        }
    }

    /// Says whether all that a side wrote, its end included, is with the transport.
    fn is_flushed(&self, side: usize) -> bool {
        let party = &self.parties[side];
        party.flushed == party.written && (!party.finishing || self.fin_flushed[side])
    }
}

/// The reasons for which an operation may fail.
#[derive(Clone, Copy, Debug)]
struct Failure {
    ended: bool,
    reset: bool,
    link: bool,
}

impl Failure {
    fn any(self) -> bool {
        self.ended || self.reset || self.link
    }

    #[track_caller]
    fn expect(self, error: &ConnError) {
        let justified = match error {
            ConnError::Closed => self.ended,
            ConnError::Reset { .. } => self.reset,
            ConnError::Link(_) => self.link,
            ConnError::DeadlinePassed
            | ConnError::Overrun
            | ConnError::Shutdown
            | ConnError::Stalled => false,
        };
        assert!(justified, "{error:?}, but {self:?}");
    }
}

/// The code of every reset here.
const CODE: u32 = 1;
