use std::io::ErrorKind;
use std::task::Waker;

use super::Flaw;
use super::state::{State, WINDOW};
use crate::mux::FrameKind;
use crate::reference::yamux::{
    ACK, DATA, FIN, GO_AWAY, HEADER, Header, PING, RST, SYN, WINDOW_UPDATE, accepted, encode,
};

/// The wire.
impl State {
    /// The next bytes for the transport.
    pub(super) fn next_output(&mut self, wakes: &mut Vec<Waker>) -> Vec<u8> {
        self.in_flight = None;
        let staged = if self.flaw == Flaw::StagesAhead {
            128
        } else {
            1
        };
        let mut out = Vec::new();
        for _ in 0..staged {
            let first = self.flaw != Flaw::ControlWaits || self.turn.is_empty();
            if first && !self.control.is_empty() {
                out.extend(self.control.drain(..));
            } else {
                self.next_frame(&mut out, wakes);
            }
        }
        out
    }

    /// Notes that the transport has the bytes.
    pub(super) fn output_taken(&mut self, wakes: &mut Vec<Waker>) {
        let id = self.in_flight.take();
        if let Some(channel) = id.and_then(|id| self.streams.get_mut(&id)) {
            wakes.extend(channel.writer.take());
        }
    }

    fn next_frame(&mut self, out: &mut Vec<u8>, wakes: &mut Vec<Waker>) {
        while let Some(id) = self.turn.pop_front() {
            let Some(channel) = self.streams.get_mut(&id) else {
                continue;
            };
            let piece = if self.flaw == Flaw::FrameFair {
                channel.pieces.pop_front().unwrap_or(QUANTUM)
            } else {
                QUANTUM
            };
            let n = channel.outbox.len().min(channel.window).min(piece);
            if n == 0 && (!channel.finished || channel.end_sent || !channel.outbox.is_empty()) {
                continue;
            }
            let kind = if n == 0 {
                channel.end_sent = true;
                FrameKind::Finish
            } else {
                FrameKind::Data
            };
            out.extend(encode(kind, id, u32::try_from(n).unwrap_or(0)));
            out.extend(channel.outbox.drain(..n));
            channel.window -= n;
            wakes.extend(channel.writer.take());
            if n > 0 {
                self.turn.push_back(id);
            } else if channel.orphan {
                self.streams.remove(&id);
            }
            self.in_flight = Some(id);
            return;
        }
    }

    /// Takes bytes from the transport.
    pub(super) fn receive(&mut self, mut bytes: &[u8], wakes: &mut Vec<Waker>) {
        while !bytes.is_empty() && self.ended.is_none() {
            if let Some((id, left)) = self.body {
                let n = left.min(bytes.len());
                self.deliver(id, &bytes[..n], wakes);
                bytes = &bytes[n..];
                self.body = (left > n).then_some((id, left - n));
                continue;
            }
            if self.flaw == Flaw::SplitHeader && bytes.len() < HEADER {
                return;
            }
            let n = (HEADER - self.input.len()).min(bytes.len());
            self.input.extend(&bytes[..n]);
            bytes = &bytes[n..];
            if let Some(header) = self.input.first_chunk() {
                let header = Header::decode(header);
                self.input.clear();
                self.handle(header, wakes);
            }
        }
    }

    fn handle(&mut self, header: Header, wakes: &mut Vec<Waker>) {
        let known = header.version == 0 && header.kind <= GO_AWAY;
        if !known || (header.kind <= WINDOW_UPDATE) == (header.id == 0) {
            self.end(ErrorKind::InvalidData, wakes);
            return;
        }
        match header.kind {
            PING => self.handle_ping(header, wakes),
            GO_AWAY if header.length == 0 => {
                self.leaving = self.flaw != Flaw::GoAwayIgnored;
                if self.flaw == Flaw::GoAwayDropsStreams {
                    self.end(ErrorKind::ConnectionAborted, wakes);
                }
            }
            GO_AWAY => self.end(ErrorKind::ConnectionAborted, wakes),
            _ => self.handle_stream(header, wakes),
        }
    }

    fn handle_ping(&mut self, header: Header, wakes: &mut Vec<Waker>) {
        if header.flags & ACK == 0 {
            let busy = self.streams.values().any(|c| !c.inbox.is_empty());
            if !(self.flaw == Flaw::PongWaits && busy) {
                self.control(&encode(FrameKind::Pong, 0, header.length), wakes);
            }
        } else if header.length <= self.pings {
            self.pongs = self.pongs.max(header.length);
            wakes.extend(self.pinger.take());
        } else if self.flaw == Flaw::StrangePongKills {
            self.end(ErrorKind::InvalidData, wakes);
        }
    }

    fn handle_stream(&mut self, header: Header, wakes: &mut Vec<Waker>) {
        let Header { id, length, .. } = header;
        let data = header.kind == DATA;
        let length = length as usize;
        if data && self.flaw == Flaw::AllocatesByHeader {
            // A compiler may leave out an allocation that nobody uses.
            drop(std::hint::black_box(Vec::<u8>::with_capacity(
                length.min(64 << 20),
            )));
        }
        let too_large = data && length > WINDOW;
        assert!(
            !(too_large && self.flaw == Flaw::PanicsOnBigFrame),
            "a frame of {length} bytes"
        );
        let twice = header.flags & SYN != 0 && (self.ours(id) || self.streams.contains_key(&id));
        if too_large || twice && self.flaw != Flaw::SameIdsOnBothSides {
            self.end(ErrorKind::InvalidData, wakes);
            return;
        }
        if header.flags & SYN != 0 {
            self.incoming(id, wakes);
        }
        self.body = (data && length > 0).then_some((id, length));
        let Some(channel) = self.streams.get_mut(&id) else {
            return self.unknown(header, wakes);
        };
        channel.frames += 1;
        channel.answered |= header.flags & ACK != 0;
        channel.peer_finished |= header.flags & FIN != 0;
        channel.reset |= header.flags & RST != 0;
        if !data {
            channel.window = channel.window.saturating_add(length).min(WINDOW);
        }
        if header.flags != 0 || !data {
            channel.wake(wakes);
        }
        let gone = channel.orphan && channel.reset;
        if gone {
            self.streams.remove(&id);
        } else if !data {
            self.enqueue(id, wakes);
        }
    }

    /// Answers a frame for a stream that is not there: data alone, for whose sender a window is spent for nothing.
    fn unknown(&mut self, header: Header, wakes: &mut Vec<Waker>) {
        if header.kind == DATA && header.flags & (RST | FIN) == 0 {
            let times = if self.flaw == Flaw::AnswersThreefold {
                3
            } else {
                1
            };
            for _ in 0..times {
                self.control(&encode(FrameKind::Reset, header.id, 0), wakes);
            }
        }
    }

    fn incoming(&mut self, id: u32, wakes: &mut Vec<Waker>) {
        let backlog = if self.flaw == Flaw::SmallBacklog {
            8
        } else {
            self.most_streams()
        };
        if self.backlog.len() >= backlog || self.count(false) >= self.most_streams() {
            self.control(&encode(FrameKind::Reset, id, 0), wakes);
            return;
        }
        let channel = self.channel(true);
        self.streams.insert(id, channel);
        self.backlog.push_back(id);
        self.control(&accepted(id), wakes);
        wakes.append(&mut self.acceptors);
    }

    fn deliver(&mut self, id: u32, bytes: &[u8], wakes: &mut Vec<Waker>) {
        let Some(channel) = self.streams.get_mut(&id) else {
            return;
        };
        if channel.orphan {
            let frame = encode(FrameKind::Reset, id, 0);
            return self.control(&frame, wakes);
        }
        if channel.inbox.len() + bytes.len() > WINDOW || channel.peer_finished {
            return self.end(ErrorKind::InvalidData, wakes);
        }
        channel.inbox.extend(bytes);
        wakes.extend(channel.reader.take());
    }
}

/// What a stream sends in its turn.
const QUANTUM: usize = 8 * 1024;
