//! What the session makes of bytes, time and the fate of the transport.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{CloseReason, ProtocolError};
use crate::frame::StreamId;
use crate::session::{Event, Role};
use crate::v1::frame::{Header, Kind};
use crate::v1::session::Session;
use crate::v1::session::decoder::Piece;

impl Session {
    /// Says whether the transport may be read: not while a connection has more unread bytes than it may.
    ///
    /// Nothing is known of the peer in that time. It ends at the latest with the connection, in
    /// [`handle_timeout`](Self::handle_timeout).
    pub fn wants_input(&self) -> bool {
        self.pressure.is_none()
    }

    /// Takes bytes that came from the transport, split anyhow; what is to be kept of them is copied.
    ///
    /// All of them are taken, also where they go beyond the bound: their number is what memory may exceed it by.
    pub fn handle_input(&mut self, now: Instant, input: impl AsRef<[u8]>) {
        let mut input = input.as_ref();
        while self.closed.is_none()
            && let Some(piece) = self.decoder.next(&mut input)
        {
            if let Err(error) = self.handle_piece(now, piece) {
                self.end(CloseReason::Protocol(error));
            }
        }
    }

    /// Notes that the transport ended. That is the peer's goodbye if it ended behind a frame and the peer has ended
    /// every connection before; otherwise it is a cut.
    pub fn handle_eof(&mut self) {
        let finished = self
            .streams
            .iter()
            .all(|(_, stream)| stream.recv.is_finished());
        self.end(if finished && self.decoder.is_between_frames() {
            CloseReason::PeerClosed
        } else {
            CloseReason::Cut
        });
    }

    /// Notes that the transport broke.
    pub fn handle_transport_error(&mut self, error: io::Error) {
        self.end(CloseReason::Transport(Arc::new(error)));
    }

    /// Notes that time passed; to be called when [`poll_timeout`](Self::poll_timeout) is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.pressure.due(now) {
            self.stall(id);
        }
        if self.linger_timeout().is_some_and(|due| due <= now) {
            self.end(CloseReason::Local);
        }
    }

    /// Notes that the transport has taken, and flushed, every frame up to this [ticket](crate::session::Frame::ticket).
    pub fn handle_flushed(&mut self, ticket: u64) {
        self.tickets.flushed = ticket;
        let waiting = self.tickets.waits.iter().copied();
        let flushed: Vec<StreamId> = waiting
            .filter(|id| {
                let stream = self.streams.get(*id);
                stream.is_none_or(|stream| stream.send.is_flushed(ticket))
            })
            .collect();
        for id in flushed {
            self.tell_writer(id);
        }
    }

    fn handle_piece(&mut self, now: Instant, piece: Piece<'_>) -> Result<(), ProtocolError> {
        match piece {
            Piece::Header(Header {
                kind: Kind::Open,
                id,
                ..
            }) => self.handle_open(id)?,
            Piece::Header(Header {
                kind: Kind::Close,
                id: Some(id),
                ..
            }) => self.handle_close(id),
            // Data follows in pieces; unknown types and numbers mean nothing.
            Piece::Header(Header {
                kind: Kind::Close | Kind::Unknown(_) | Kind::Write,
                ..
            }) => {}
            Piece::Payload { id, bytes } => self.handle_payload(now, id, bytes),
        }
        Ok(())
    }

    /// Takes a connection, or refuses it in the only way there is, with `C`.
    fn handle_open(&mut self, id: Option<StreamId>) -> Result<(), ProtocolError> {
        if self.role == Role::Dialer {
            return Err(ProtocolError::OpenedByListener);
        }
        // Connections that are accepted and reset again are answered as well.
        if self.control.closes() >= self.config.max_pending_resets {
            return Err(ProtocolError::Flood);
        }
        let full = self.streams.len() >= self.config.max_inbound_streams;
        match id {
            Some(id) if self.streams.get(id).is_some() => Err(ProtocolError::DuplicateOpen(id)),
            Some(id) if !full && !self.departure.deserted => {
                self.streams.admit(id);
                self.departure.held += 1;
                self.events.push_back(Event::Incoming);
                Ok(())
            }
            refused => {
                self.control.close(refused);
                Ok(())
            }
        }
    }

    /// Notes the end of the peer's data. What goes the other way goes on.
    fn handle_close(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.recv.finish();
            self.tell_reader(id);
        }
    }

    fn handle_payload(&mut self, now: Instant, id: StreamId, bytes: &[u8]) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.recv.push(bytes, &mut self.spare);
            self.pressure.rise(id, stream.recv.unread(), now);
            self.tell_reader(id);
        }
    }
}
