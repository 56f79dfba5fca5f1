//! What the session makes of bytes, time and the fate of the transport.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{CloseReason, ProtocolError};
use crate::frame::{Flags, GoAwayCode, Header, INITIAL_WINDOW, StreamId};
use crate::session::decoder::Piece;
use crate::session::liveness::Verdict;
use crate::session::recv::RecvState;
use crate::session::stream::{End, Handle, Opening};
use crate::session::table::Absent;
use crate::session::{Event, Role, Session};

impl Session {
    /// Takes bytes that came from the transport, split anyhow; what is to be kept of them is copied.
    pub fn handle_input(&mut self, now: Instant, input: impl AsRef<[u8]>) {
        self.liveness.heard(now);
        let mut input = input.as_ref();
        while self.closed.is_none() {
            let outcome = match self.decoder.next(&mut input) {
                Some(Ok(piece)) => self.handle_piece(now, piece),
                Some(Err(error)) => Err(ProtocolError::Frame(error)),
                None => break,
            };
            if let Err(error) = outcome {
                self.end(CloseReason::Protocol(error));
            }
        }
    }

    /// Notes that the transport ended. That is a cut unless the peer said goodbye.
    pub fn handle_eof(&mut self) {
        self.end(if self.departure.peer_leaves {
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
        if let Verdict::Dead(silence) = self.liveness.handle_timeout(now) {
            self.end(CloseReason::TimedOut(silence));
        }
        if self.linger_timeout().is_some_and(|due| due <= now) {
            self.end(CloseReason::Local);
        }
        self.memory.handle_timeout(now);
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
            Piece::Header(Header::Data { id, flags, length }) => {
                self.handle_data(id, flags, length)
            }
            Piece::Header(Header::WindowUpdate { id, flags, delta }) => {
                self.handle_window_update(id, flags, delta)
            }
            Piece::Header(Header::Ping { nonce }) => {
                self.control.pong(nonce);
                Ok(())
            }
            Piece::Header(Header::Pong { nonce }) => {
                if let Some(round_trip) = self.liveness.handle_pong(nonce, now) {
                    self.events.push_back(Event::Pong { nonce, round_trip });
                }
                Ok(())
            }
            Piece::Header(Header::GoAway { code }) => {
                self.handle_go_away(code);
                Ok(())
            }
            Piece::Payload { id, bytes, flags } => {
                self.handle_payload(id, bytes, flags);
                Ok(())
            }
        }
    }

    fn handle_data(
        &mut self,
        id: StreamId,
        flags: Flags,
        length: u32,
    ) -> Result<(), ProtocolError> {
        self.handle_opening(id, flags)?;
        let Some(stream) = self.streams.get_mut(id) else {
            let buried = flags.contains(Flags::SYN);
            if length > 0 && !buried && !flags.contains(Flags::RST) {
                return self.refuse(id);
            }
            return Ok(());
        };
        stream
            .recv
            .announce(length)
            .ok_or(ProtocolError::WindowExceeded(id))?;
        if length == 0 {
            self.handle_closing(id, flags, 0);
        }
        Ok(())
    }

    fn handle_window_update(
        &mut self,
        id: StreamId,
        flags: Flags,
        delta: u32,
    ) -> Result<(), ProtocolError> {
        self.handle_opening(id, flags)?;
        let ours = self.streams.is_ours(id);
        let Some(stream) = self.streams.get_mut(id) else {
            return Ok(());
        };
        // The length of a reset is its code.
        if !flags.contains(Flags::RST) {
            // An ACK says again what was known before it.
            let known = if ours && flags.contains(Flags::ACK) {
                self.config.first_credit() - INITIAL_WINDOW
            } else {
                0
            };
            stream
                .send
                .grant(delta.saturating_sub(known))
                .ok_or(ProtocolError::CreditOverflow(id))?;
            self.schedule(id);
        }
        self.handle_closing(id, flags, delta);
        Ok(())
    }

    /// Takes a piece of announced payload, and with the last of it what its frame says besides.
    fn handle_payload(&mut self, id: StreamId, payload: &[u8], flags: Flags) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        stream.recv.push(payload, &mut self.memory);
        if std::mem::take(&mut stream.waits.read) {
            self.events.push_back(Event::Readable(id));
        }
        if stream.recv.update_is_due() {
            self.notice(id);
        }
        self.handle_closing(id, flags, 0);
        if self.memory.held() > self.config.receive_budget() {
            self.relieve();
        }
    }

    /// Opens the stream if the frame says so, and sees to it that every other frame belongs to one that was opened.
    fn handle_opening(&mut self, id: StreamId, flags: Flags) -> Result<(), ProtocolError> {
        if flags.contains(Flags::SYN) {
            return self.handle_syn(id);
        }
        let Some(stream) = self.streams.get_mut(id) else {
            return match self.streams.absent(id) {
                Absent::Gone => Ok(()),
                Absent::Never => Err(ProtocolError::NeverOpened(id)),
            };
        };
        match stream.opening {
            Opening::Queued => Err(ProtocolError::NeverOpened(id)),
            // Peers that acknowledge late, or never, confirm by whatever they send.
            Opening::Sent if stream.is_live() && !flags.contains(Flags::RST) => {
                stream.opening = Opening::Done;
                self.tell_writer(id);
                Ok(())
            }
            Opening::Sent | Opening::Answering | Opening::Done => Ok(()),
        }
    }

    fn handle_syn(&mut self, id: StreamId) -> Result<(), ProtocolError> {
        if self.streams.is_ours(id) {
            return Err(ProtocolError::WrongParity(id));
        }
        if self.streams.get(id).is_some() {
            return Err(ProtocolError::DuplicateOpen(id));
        }
        self.streams.note(id);
        let full = self.streams.inbound() >= self.config.max_inbound_streams;
        if full || self.role == Role::Dialer || self.departure.deserted {
            self.streams.bury(id);
            return self.provoked_reset(id);
        }
        self.streams.admit(id, &self.config);
        self.departure.held += 1;
        self.notice(id);
        self.events.push_back(Event::Incoming);
        // Streams that are accepted and dropped again are answered with resets as well.
        if self.control.resets() >= self.config.max_pending_resets {
            return Err(ProtocolError::Flood);
        }
        Ok(())
    }

    /// Ends what the frame ends: FIN one direction, RST both.
    fn handle_closing(&mut self, id: StreamId, flags: Flags, code: u32) {
        if flags.contains(Flags::RST) {
            self.handle_rst(id, code);
        } else if flags.contains(Flags::FIN) {
            self.handle_fin(id);
        }
    }

    /// Notes the end of the peer's data. A second FIN means nothing: rust-yamux sends two.
    fn handle_fin(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        // Behind a reset nothing counts.
        if !stream.is_live() {
            return;
        }
        stream.recv.finish();
        let over = stream.handle == Handle::Released && stream.is_finished();
        self.tell_reader(id);
        if over {
            self.remove(id);
        }
    }

    fn handle_rst(&mut self, id: StreamId, code: u32) {
        let backlog = self.streams.is_in_backlog(id);
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        stream.end = match stream.end {
            End::None => End::ResetByPeer { code },
            End::ClosedHere => End::ResetHere,
            end @ (End::Overrun | End::ResetHere | End::ResetByPeer { .. }) => end,
        };
        stream.send.abandon();
        let said_nothing = !stream.recv.has_data() && stream.recv.state() == RecvState::Open;
        stream.recv.close();
        let over = stream.handle == Handle::Released || (backlog && said_nothing);
        self.unqueue(id);
        self.tell(id);
        if over {
            self.forget_handle(id);
            self.remove(id);
        }
    }

    fn handle_go_away(&mut self, code: GoAwayCode) {
        if code == GoAwayCode::NORMAL {
            self.departure.peer_leaves = true;
            self.end_if_idle();
        } else {
            self.end(CloseReason::PeerError(code));
        }
    }

    /// Answers data for a stream that is gone: once, so that its writer learns that nobody reads.
    fn refuse(&mut self, id: StreamId) -> Result<(), ProtocolError> {
        if self.streams.bury(id) {
            return self.provoked_reset(id);
        }
        Ok(())
    }

    /// Queues a reset that the peer provoked, within the bound.
    fn provoked_reset(&mut self, id: StreamId) -> Result<(), ProtocolError> {
        if self.control.resets() >= self.config.max_pending_resets {
            return Err(ProtocolError::Flood);
        }
        self.control.reset(id, CODE_REFUSED);
        Ok(())
    }
}

/// The code of a reset of a stream that we do not know, or do not want.
const CODE_REFUSED: u32 = 0;
