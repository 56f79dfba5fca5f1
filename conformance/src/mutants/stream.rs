//! Faults in what is read and written.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a mutant is sound but for its one flaw"
)]

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::REFERENCE_CAPS;
use super::control::Forward;
use crate::pair::{End, Pair};
use crate::reference::reference;
use crate::target::Target;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flaw {
    ByteLostAt64K,
    ByteRepeatedAt64K,
    CancelledReadLosesByte,
    CancelledWriteIsSent,
    CrossedEndsAreAnError,
    DropBehindDataIsEnd,
    DropDiscards,
    DropIsEnd,
    EachMessagePins4K,
    EachWriteTakesAMiB,
    EmptyStreamNeverEnds,
    EndAfter64K,
    EndDropped,
    EndOnlyOnce,
    EndThenError,
    FillsTheBuffer,
    HoldsSmallWrites,
    MessagesRemembered,
    MessagesStop,
    NagleForEver,
    NeverResumes,
    OddWritesLoseAByte,
    OverreportsWrites,
    PeerEndEndsWrites,
    ReadClearsBuffer,
    ResetIsEnd,
    ResponderDropIsEnd,
    SecondEndLost,
    SecondShutdownFails,
    ShutdownDiscardsSmallWrites,
    ShutdownEndsBoth,
    SmallWritesOvertake,
    StopsReadingAfterOwnEnd,
    StopsWritingAfterPeerEnd,
    VectoredEmptyFirst,
    VectoredFirstOnly,
    VectoredSum,
    WriteAfterShutdownHangs,
    WriteAfterShutdownTaken,
    WriteZeroWhenPeerGone,
    WriterStuckWhenPeerGone,
    ZeroReadConsumes,
    ZeroReadPends,
    ZeroWriteEnds,
    ZeroWritePends,
}

/// The reference pair with a flaw in both ends.
pub(super) fn flawed(flaw: Flaw) -> Target {
    let make = move || async move {
        let Pair { a, b, stop } = reference();
        let wrap = |end: End| {
            let control = Forward(end.control());
            End::with_control(Flawed::new(flaw, end), control)
        };
        Ok(Pair::of(wrap(a), wrap(b)).keep(stop))
    };
    Target::pairs("mutant", make, REFERENCE_CAPS)
}

struct Flawed {
    flaw: Flaw,
    end: End,
    read: usize,
    last: u8,
    written: usize,
    written_last: usize,
    pendings: usize,
    finished: bool,
    peer_ended: bool,
    read_parked: Option<usize>,
    held: Vec<u8>,
    overtaken: Vec<u8>,
    hoard: Vec<Vec<u8>>,
}

impl Flawed {
    fn new(flaw: Flaw, end: End) -> Self {
        Self {
            flaw,
            end,
            read: 0,
            last: 0,
            written: 0,
            written_last: 0,
            pendings: 0,
            finished: false,
            peer_ended: false,
            read_parked: None,
            held: Vec::new(),
            overtaken: Vec::new(),
            hoard: Vec::new(),
        }
    }

    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    /// Reads a piece from the sound connection.
    fn piece(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<io::Result<Vec<u8>>> {
        let mut piece = vec![0; len];
        let mut buf = ReadBuf::new(&mut piece);
        let poll = Pin::new(&mut self.end).poll_read(cx, &mut buf);
        let n = buf.filled().len();
        if poll.is_pending() {
            self.read_parked = Some(len);
            return Poll::Pending;
        }
        ready!(poll)?;
        piece.truncate(n);
        self.peer_ended |= n == 0 && len > 0;
        Poll::Ready(Ok(piece))
    }

    /// Spoils what was read.
    fn spoil(&mut self, piece: &mut Vec<u8>, len: usize) {
        let edge = 65_536_usize.wrapping_sub(self.read);
        let crosses = edge < piece.len();
        let last = piece.last().copied();
        self.read += piece.len();
        let parked = self.read_parked.take();
        match self.flaw {
            Flaw::ByteRepeatedAt64K if crosses => {
                piece[edge] = edge.checked_sub(1).map_or(self.last, |i| piece[i]);
            }
            Flaw::ByteLostAt64K if crosses => drop(piece.remove(edge)),
            Flaw::CancelledReadLosesByte
                if piece.len() > 1 && parked.is_some_and(|parked| parked != len) =>
            {
                piece.remove(0);
            }
            _ => {}
        }
        self.last = last.unwrap_or(self.last);
        if self.is(Flaw::MessagesRemembered) {
            self.hoard.push(Vec::with_capacity(16));
        }
    }

    /// Answers a read without asking the sound connection, where the flaw says so.
    fn read_instead(&mut self, cx: &mut Context<'_>, len: usize) -> Option<Poll<io::Result<()>>> {
        let kept_from_reading = self.finished && self.is(Flaw::StopsReadingAfterOwnEnd);
        match self.flaw {
            Flaw::ZeroReadPends if len == 0 => Some(Poll::Pending),
            Flaw::ZeroReadConsumes if len == 0 => {
                Some(self.piece(cx, 1).map(|piece| piece.map(drop)))
            }
            Flaw::EndOnlyOnce if self.peer_ended => Some(Poll::Pending),
            Flaw::EndThenError if self.peer_ended => {
                Some(Poll::Ready(Err(ErrorKind::NotConnected.into())))
            }
            Flaw::EndAfter64K if self.read >= 1 << 16 => Some(Poll::Ready(Ok(()))),
            Flaw::ShutdownEndsBoth if self.finished => Some(Poll::Ready(Ok(()))),
            Flaw::MessagesStop if self.read >= 8 * 400 && len <= 8 => Some(Poll::Pending),
            _ if kept_from_reading && self.read >= 1 << 18 => Some(Poll::Pending),
            _ => None,
        }
    }

    /// Collects until the reader's buffer is full.
    fn read_full(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.held.len() < buf.remaining() && !self.peer_ended {
            let piece = ready!(self.piece(cx, buf.remaining() - self.held.len()))?;
            self.held.extend(piece);
        }
        let n = self.held.len().min(buf.remaining());
        buf.put_slice(&self.held[..n]);
        self.held.drain(..n);
        Poll::Ready(Ok(()))
    }

    /// Answers a write without asking the sound connection, where the flaw says so.
    fn write_instead(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Option<Poll<io::Result<usize>>> {
        let broken = || Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        match self.flaw {
            Flaw::ZeroWritePends if buf.is_empty() => Some(Poll::Pending),
            Flaw::ZeroWriteEnds if buf.is_empty() => {
                let end = Pin::new(&mut self.end).poll_shutdown(cx);
                Some(end.map(|end| end.map(|()| 0)))
            }
            Flaw::WriteAfterShutdownTaken if self.finished => Some(Poll::Ready(Ok(buf.len()))),
            Flaw::WriteAfterShutdownHangs if self.finished => Some(Poll::Pending),
            Flaw::PeerEndEndsWrites if self.peer_ended => Some(broken()),
            Flaw::StopsWritingAfterPeerEnd if self.peer_ended && self.written >= 1 << 18 => {
                Some(Poll::Pending)
            }
            Flaw::NeverResumes if self.pendings > 4 => Some(Poll::Pending),
            Flaw::SmallWritesOvertake if buf.len() < 16 && self.written_last >= 4096 => {
                self.overtaken.extend_from_slice(buf);
                self.written_last = 0;
                Some(Poll::Ready(Ok(buf.len())))
            }
            Flaw::NagleForEver if buf.len() < 16 && self.held.len() < 16 => {
                self.held.extend_from_slice(buf);
                Some(Poll::Ready(Ok(buf.len())))
            }
            Flaw::HoldsSmallWrites | Flaw::ShutdownDiscardsSmallWrites if buf.len() < 16 => {
                self.held.extend_from_slice(buf);
                Some(Poll::Ready(Ok(buf.len())))
            }
            _ => None,
        }
    }

    /// Sends what was held back.
    fn release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.overtaken.is_empty() {
            let n = ready!(Pin::new(&mut self.end).poll_write(cx, &self.overtaken))?;
            self.overtaken.drain(..n);
        }
        while !self.held.is_empty() && !self.is(Flaw::FillsTheBuffer) {
            let n = ready!(Pin::new(&mut self.end).poll_write(cx, &self.held))?;
            self.held.drain(..n);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Flawed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let len = buf.remaining();
        if let Some(poll) = this.read_instead(cx, len) {
            return poll;
        }
        match this.flaw {
            Flaw::FillsTheBuffer => return this.read_full(cx, buf),
            Flaw::ReadClearsBuffer => buf.clear(),
            _ => {}
        }
        let piece = match ready!(this.piece(cx, len)) {
            Err(error)
                if this.is(Flaw::ResetIsEnd) && error.kind() == ErrorKind::ConnectionReset =>
            {
                return Poll::Ready(Ok(()));
            }
            piece => piece,
        };
        let mut piece = piece?;
        if piece.is_empty() && len > 0 && this.finished && this.is(Flaw::CrossedEndsAreAnError) {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        this.spoil(&mut piece, len);
        buf.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flawed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(poll) = this.write_instead(cx, buf) {
            return poll;
        }
        if this.is(Flaw::CancelledWriteIsSent) && this.held.first() == buf.first() {
            this.held.clear();
        }
        if this.overtaken.is_empty() {
            ready!(this.release(cx))?;
        }
        let odd = this.is(Flaw::OddWritesLoseAByte) && buf.len() > 1 && buf.len() % 4096 == 1;
        let sent = &buf[..buf.len() - usize::from(odd)];
        let poll = Pin::new(&mut this.end).poll_write(cx, sent);
        match (&poll, this.flaw) {
            (Poll::Pending, Flaw::CancelledWriteIsSent) => this.held = buf[..1].to_vec(),
            (Poll::Pending, _) => this.pendings += 1,
            (Poll::Ready(Err(_)), Flaw::WriterStuckWhenPeerGone) => return Poll::Pending,
            (Poll::Ready(Err(_)), Flaw::WriteZeroWhenPeerGone) => {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            _ => {}
        }
        let n = ready!(poll)?;
        this.written += n;
        this.written_last = n;
        match this.flaw {
            Flaw::EachMessagePins4K => this.hoard.push(Vec::with_capacity(4096)),
            Flaw::EachWriteTakesAMiB => this.hoard.push(Vec::with_capacity(1 << 20)),
            _ => {}
        }
        let short = this.is(Flaw::OverreportsWrites) && n < buf.len();
        let overreported = short || odd && n == sent.len();
        Poll::Ready(Ok(n + usize::from(overreported)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is(Flaw::CancelledWriteIsSent) && !self.is(Flaw::NagleForEver) {
            ready!(self.release(cx))?;
        }
        Pin::new(&mut self.end).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.flaw {
            Flaw::EndDropped => return Poll::Ready(Ok(())),
            Flaw::SecondEndLost if this.peer_ended => return Poll::Ready(Ok(())),
            Flaw::EmptyStreamNeverEnds if this.written == 0 => return Poll::Ready(Ok(())),
            Flaw::SecondShutdownFails if this.finished => {
                return Poll::Ready(Err(ErrorKind::NotConnected.into()));
            }
            Flaw::ShutdownDiscardsSmallWrites | Flaw::CancelledWriteIsSent => this.held.clear(),
            _ => {}
        }
        ready!(this.release(cx))?;
        this.finished = true;
        Pin::new(&mut this.end).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first: &[u8] = bufs.iter().find(|b| !b.is_empty()).map_or(&[], |b| b);
        match self.flaw {
            Flaw::VectoredFirstOnly => self.as_mut().poll_write(cx, first),
            Flaw::VectoredEmptyFirst => {
                let first: &[u8] = bufs.first().map_or(&[], |b| b);
                self.as_mut().poll_write(cx, first)
            }
            Flaw::VectoredSum => {
                ready!(self.as_mut().poll_write(cx, first))?;
                Poll::Ready(Ok(bufs.iter().map(|b| b.len()).sum()))
            }
            _ => Pin::new(&mut self.end).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl Drop for Flawed {
    fn drop(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let responder = self.is(Flaw::ResponderDropIsEnd) && self.peer_ended;
        let behind = self.is(Flaw::DropBehindDataIsEnd) && self.written > 100_000;
        if self.is(Flaw::DropIsEnd) || responder || behind {
            let _ = Pin::new(&mut self.end).poll_shutdown(&mut cx);
        }
        if self.is(Flaw::DropDiscards) && self.finished {
            self.end.control().reset();
        }
    }
}
