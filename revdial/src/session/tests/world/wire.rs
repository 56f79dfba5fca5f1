//! Frames under way, and what each of them tells the oracle.

use std::collections::VecDeque;

use super::*;

/// The frames that one side has sent and the other has not got in full.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Wire {
    frames: VecDeque<Sent>,
    /// Bytes of the first frame that have arrived.
    offset: usize,
}

#[derive(Clone, Debug, Hash)]
struct Sent {
    head: [u8; HEADER_LEN],
    payload: Vec<u8>,
}

impl Sent {
    fn header(&self) -> Header {
        Header::decode(&self.head).unwrap()
    }

    fn len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }
}

impl Wire {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn first_len(&self) -> Option<usize> {
        self.frames.front().map(|frame| frame.len() - self.offset)
    }

    /// Payload whose header has arrived, itself still under way.
    pub(super) fn announced(&self, id: StreamId) -> u64 {
        match self.frames.front() {
            Some(frame) if self.offset >= HEADER_LEN && payload(frame.header(), id) > 0 => {
                (frame.len() - self.offset) as u64
            }
            Some(_) | None => 0,
        }
    }

    /// Payload whose header is under way.
    pub(super) fn unannounced(&self, id: StreamId) -> u64 {
        self.headers_under_way()
            .map(|header| payload(header, id))
            .sum()
    }

    /// Credit under way.
    pub(super) fn credit(&self, id: StreamId) -> u64 {
        self.headers_under_way()
            .map(|header| credit(header, id))
            .sum()
    }

    fn headers_under_way(&self) -> impl Iterator<Item = Header> {
        let skip = usize::from(self.offset >= HEADER_LEN);
        self.frames.iter().skip(skip).map(Sent::header)
    }
}

/// Bytes of the stream behind this header.
fn payload(header: Header, stream: StreamId) -> u64 {
    if let Header::Data { id, length, .. } = header
        && id == stream
    {
        u64::from(length)
    } else {
        0
    }
}

/// Bytes that this frame allows the stream.
fn credit(header: Header, stream: StreamId) -> u64 {
    if let Header::WindowUpdate { id, flags, delta } = header
        && id == stream
        && !flags.contains(Flags::RST)
    {
        u64::from(delta)
    } else {
        0
    }
}

impl World {
    /// Makes a frame, checks that it may be sent, and puts it on the wire.
    pub(super) fn transmit(&mut self, side: usize, max: usize) -> bool {
        let now = self.now;
        let Some(frame) = self.sides[side].poll_transmit(now, max) else {
            assert!(!self.sides[side].has_output(), "output that is none");
            return false;
        };
        self.links[side].made += 1;
        assert_eq!(frame.ticket(), self.links[side].made);
        assert!(frame.payload().len() <= max.clamp(1, 16 * 1024));
        assert_eq!(
            self.links[side].farewell,
            Mark::No,
            "a frame behind the farewell"
        );
        let head: [u8; HEADER_LEN] = frame.head().try_into().unwrap();
        let header = Header::decode(&head).unwrap();
        match header {
            Header::Data { id, flags, length } => {
                assert_eq!(length as usize, frame.payload().len());
                self.frame_data(side, id, flags, u64::from(length));
            }
            Header::WindowUpdate { id, flags, delta } => self.frame_update(side, id, flags, delta),
            Header::Ping { .. } | Header::Pong { .. } => {}
            Header::GoAway { code } => {
                assert_eq!(code, GoAwayCode::NORMAL);
                self.links[side].farewell = Mark::Framed;
            }
        }
        self.wires[side].frames.push_back(Sent {
            head,
            payload: frame.into_payload().to_vec(),
        });
        true
    }

    pub(super) fn flushed(&mut self, side: usize) {
        let ticket = self.links[side].made;
        self.sides[side].handle_flushed(ticket);
        for track in &mut self.tracks {
            let party = &mut track.parties[side];
            party.flushed = party.framed;
            track.fin_flushed[side] = party.fin != Mark::No;
        }
    }

    fn frame_data(&mut self, side: usize, id: StreamId, flags: Flags, length: u64) {
        let party = self.party(side, id);
        assert_ne!(party.hello, Mark::No, "data of an unannounced stream");
        assert_eq!(party.fin, Mark::No, "a frame behind FIN");
        assert_eq!(party.rst, Mark::No, "a frame behind RST");
        party.framed += length;
        assert!(party.framed <= party.written, "bytes that nobody wrote");
        if flags == Flags::FIN {
            assert_eq!(length, 0);
            assert!(party.finishing, "an end that nobody promised");
            assert_eq!(party.framed, party.written, "an end before all data");
            party.fin = Mark::Framed;
        } else {
            assert_eq!(flags, Flags::NONE);
            assert!(length > 0, "a frame that says nothing");
        }
    }

    fn frame_update(&mut self, side: usize, id: StreamId, flags: Flags, delta: u32) {
        let hello = [Flags::SYN, Flags::ACK][side];
        let party = self.party(side, id);
        assert_eq!(party.rst, Mark::No, "a frame behind RST");
        if flags == Flags::RST {
            assert!(
                party.hello != Mark::No || side == 1,
                "the reset of an unannounced stream"
            );
            assert!(delta <= CODE);
            party.rst = Mark::Framed;
        } else if flags == hello {
            assert_eq!(party.hello, Mark::No, "a second greeting");
            party.hello = Mark::Framed;
        } else {
            assert_eq!(flags, Flags::NONE);
            assert_ne!(party.hello, Mark::No, "credit of an unannounced stream");
            assert!(delta > 0, "a frame that says nothing");
        }
    }

    /// Lets bytes arrive; behind a frame that opens a stream the input is split, so that its windows can be made small.
    pub(super) fn deliver(&mut self, from: usize, mut bytes: usize) {
        while bytes > 0 && !self.wires[from].is_empty() {
            let mut chunk = Vec::new();
            let mut opened = None;
            while bytes > 0 && opened.is_none() && !self.wires[from].is_empty() {
                opened = self.deliver_part(from, &mut bytes, &mut chunk);
            }
            let now = self.now;
            self.sides[1 - from].handle_input(now, &chunk);
            if let Some(id) = opened {
                self.shrink(1 - from, id);
            }
        }
    }

    /// Takes what fits off the first frame; the stream that it opens.
    fn deliver_part(
        &mut self,
        from: usize,
        bytes: &mut usize,
        chunk: &mut Vec<u8>,
    ) -> Option<StreamId> {
        let wire = &mut self.wires[from];
        let frame = wire.frames.front()?;
        let header = frame.header();
        let (begin, len) = (wire.offset, frame.len());
        let end = len.min(begin + *bytes);
        let whole: Vec<u8> = frame.head.iter().chain(&frame.payload).copied().collect();
        chunk.extend_from_slice(&whole[begin..end]);
        *bytes -= end - begin;
        wire.offset = end;
        if end == len {
            wire.frames.pop_front();
            wire.offset = 0;
        }
        if self.is_closed(1 - from) {
            return None;
        }
        let payload = end.max(HEADER_LEN) - begin.max(HEADER_LEN);
        self.arrive(from, header, payload as u64, end >= HEADER_LEN, end == len)
    }

    fn arrive(
        &mut self,
        from: usize,
        header: Header,
        payload: u64,
        begun: bool,
        complete: bool,
    ) -> Option<StreamId> {
        let (id, flags) = match header {
            Header::Data { id, flags, .. } | Header::WindowUpdate { id, flags, .. } => (id, flags),
            Header::GoAway { .. } => {
                if complete {
                    self.links[from].farewell = Mark::Arrived;
                }
                return None;
            }
            Header::Ping { .. } | Header::Pong { .. } => return None,
        };
        let party = self.party(from, id);
        party.arrived += payload;
        // Any frame but a reset confirms, and SYN and ACK come first.
        if begun && !flags.contains(Flags::RST) {
            party.hello = Mark::Arrived;
        }
        if complete && flags.contains(Flags::FIN) {
            party.fin = Mark::Arrived;
        }
        if complete && flags.contains(Flags::RST) {
            party.rst = Mark::Arrived;
        }
        (complete && flags.contains(Flags::SYN)).then_some(id)
    }

    pub(super) fn party(&mut self, side: usize, id: StreamId) -> &mut Party {
        let track = self.tracks.iter_mut().find(|track| track.id == id);
        &mut track.unwrap().parties[side]
    }
}
