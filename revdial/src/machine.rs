//! The machine of a link, whichever its dialect.

use std::io::{self, IoSlice};
use std::task::Poll;
use std::time::Instant;

use bytes::{BufMut, Bytes};

use crate::config::Config;
use crate::error::{CloseReason, ConnError, DialError};
use crate::frame::StreamId;
use crate::session::{Event, Frame, Role, Session};
use crate::v1;

#[cfg(test)]
mod tests;

/// One side of a link that carries many connections.
///
/// The machines have the same methods with the same meanings; what is said of them is said there.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each link, in the link's own allocation"
)]
pub(crate) enum Machine {
    V1(v1::Session),
    V3(Session),
}

/// Calls the machine that it is.
macro_rules! on {
    ($machine:expr, $session:ident => $call:expr) => {
        match $machine {
            Self::V1($session) => $call,
            Self::V3($session) => $call,
        }
    };
}

impl Machine {
    /// Starts a session of dialect v1.
    pub(crate) fn v1(role: Role, config: Config) -> Self {
        Self::V1(v1::Session::new(role, config))
    }

    /// Starts a session of dialect v3.
    pub(crate) fn v3(role: Role, config: Config, now: Instant, jitter: u8) -> Self {
        Self::V3(Session::new(role, config, now, jitter))
    }

    /// Says whether the transport may be read. A v3 peer stops by itself where its credit ends.
    #[inline]
    pub(crate) fn wants_input(&self) -> bool {
        match self {
            Self::V1(session) => session.wants_input(),
            Self::V3(_) => true,
        }
    }

    /// Bytes that one read of the transport may bring. What it brings on v1 is kept beyond the bound.
    pub(crate) fn largest_read(&self) -> usize {
        match self {
            Self::V1(_) => 64 * 1024,
            Self::V3(_) => 256 * 1024,
        }
    }

    /// Asks for the round trip time; `None` where the dialect has no pings.
    pub(crate) fn ping(&mut self) -> Option<u32> {
        match self {
            Self::V1(_) => None,
            Self::V3(session) => Some(session.ping()),
        }
    }

    // Input.

    #[inline]
    pub(crate) fn handle_input(&mut self, now: Instant, input: &[u8]) {
        on!(self, session => session.handle_input(now, input));
    }

    pub(crate) fn handle_eof(&mut self) {
        on!(self, session => session.handle_eof());
    }

    pub(crate) fn handle_transport_error(&mut self, error: io::Error) {
        on!(self, session => session.handle_transport_error(error));
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        on!(self, session => session.handle_timeout(now));
    }

    #[inline]
    pub(crate) fn handle_flushed(&mut self, ticket: u64) {
        on!(self, session => session.handle_flushed(ticket));
    }

    // Commands for connections.

    pub(crate) fn open(&mut self) -> Result<StreamId, DialError> {
        on!(self, session => session.open())
    }

    pub(crate) fn poll_opened(&mut self, id: StreamId) -> Poll<Result<(), DialError>> {
        on!(self, session => session.poll_opened(id))
    }

    pub(crate) fn accept(&mut self) -> Option<StreamId> {
        on!(self, session => session.accept())
    }

    #[inline]
    pub(crate) fn read<B: BufMut>(
        &mut self,
        id: StreamId,
        buf: &mut B,
    ) -> Poll<Result<usize, ConnError>> {
        on!(self, session => session.read(id, buf))
    }

    #[inline]
    pub(crate) fn read_chunk(
        &mut self,
        id: StreamId,
        max: usize,
    ) -> Poll<Result<Bytes, ConnError>> {
        on!(self, session => session.read_chunk(id, max))
    }

    #[inline]
    pub(crate) fn write(&mut self, id: StreamId, data: &[u8]) -> Poll<Result<usize, ConnError>> {
        on!(self, session => session.write(id, data))
    }

    #[inline]
    pub(crate) fn write_vectored(
        &mut self,
        id: StreamId,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize, ConnError>> {
        on!(self, session => session.write_vectored(id, slices))
    }

    #[inline]
    pub(crate) fn flush(&mut self, id: StreamId) -> Poll<Result<(), ConnError>> {
        on!(self, session => session.flush(id))
    }

    pub(crate) fn shutdown(&mut self, id: StreamId) -> Poll<Result<(), ConnError>> {
        on!(self, session => session.shutdown(id))
    }

    pub(crate) fn close(&mut self, id: StreamId) {
        on!(self, session => session.close(id));
    }

    pub(crate) fn reset(&mut self, id: StreamId, code: u32) {
        on!(self, session => session.reset(id, code));
    }

    pub(crate) fn stop_reading(&mut self, id: StreamId) {
        on!(self, session => session.stop_reading(id));
    }

    pub(crate) fn stop_writing(&mut self, id: StreamId) {
        on!(self, session => session.stop_writing(id));
    }

    pub(crate) fn release(&mut self, id: StreamId, now: Instant) {
        on!(self, session => session.release(id, now));
    }

    // Commands for the session.

    pub(crate) fn release_endpoint(&mut self, now: Instant) {
        on!(self, session => session.release_endpoint(now));
    }

    pub(crate) fn end(&mut self, reason: CloseReason) {
        on!(self, session => session.end(reason));
    }

    // Output.

    #[inline]
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        on!(self, session => session.poll_event())
    }

    #[inline]
    pub(crate) fn poll_transmit(&mut self, now: Instant, max: usize) -> Option<Frame> {
        on!(self, session => session.poll_transmit(now, max))
    }

    #[inline]
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        on!(self, session => session.poll_timeout())
    }

    #[inline]
    pub(crate) fn has_output(&self) -> bool {
        on!(self, session => session.has_output())
    }

    /// Says whether what there is to send may wait for an answer that goes with it. In v1 nothing does.
    #[inline]
    pub(crate) fn may_wait(&self) -> bool {
        match self {
            Self::V1(_) => false,
            Self::V3(session) => session.may_wait(),
        }
    }

    #[inline]
    pub(crate) fn recycle(&mut self, frame: Frame) {
        on!(self, session => session.recycle(frame));
    }

    #[inline]
    pub(crate) fn wants_flush(&self) -> bool {
        on!(self, session => session.wants_flush())
    }

    #[inline]
    pub(crate) fn closed(&self) -> Option<&CloseReason> {
        on!(self, session => session.closed())
    }

    pub(crate) fn is_leaving(&self) -> bool {
        on!(self, session => session.is_leaving())
    }
}
