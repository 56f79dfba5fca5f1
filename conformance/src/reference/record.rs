use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::pair::Wire;

/// A connection over a byte pipe that tells the end of the stream from the end of the pipe: each write is a record of
/// a two-byte length and its bytes, and a record of length 0 is the end.
///
/// The smallest transport that can be built over a faulty pipe and promise something about it.
pub fn record(wire: Wire) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static {
    record_with(wire, Flaws::default())
}

pub(crate) fn record_with(wire: Wire, flaws: Flaws) -> Record {
    Record {
        wire,
        flaws,
        incoming: Incoming::Header {
            bytes: [0; 2],
            have: 0,
        },
        outgoing: Vec::new(),
        sent: 0,
        finished: false,
    }
}

/// What mutants of the record layer get wrong.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Flaws {
    /// Nothing.
    #[default]
    None,
    /// A body that came in part goes on as if nothing of it had come.
    BodyStartsAnew,
    /// After the pipe has died reads are pending for ever.
    CutHangs,
    /// The end of the pipe between two records passes for the end of the stream.
    CutBetweenRecordsIsEof,
    /// Any failure of the pipe passes for the end of the stream.
    CutIsEof,
    /// Every shutdown writes an end record.
    EndTwice,
    /// A flush does nothing: bytes leave with the next write.
    FlushDoesNothing,
    /// A flush does not wait for the pipe.
    FlushLies,
    /// Bytes stay behind until the next flush.
    SendsOnlyOnFlush,
    /// A header whose body has not come is forgotten.
    PendingForgetsHeader,
    /// A second shutdown is done, whatever became of the first.
    SecondShutdownIsDone,
    /// A header is expected to come in one read.
    SplitHeader,
}

#[derive(Debug)]
enum Incoming {
    Header { bytes: [u8; 2], have: usize },
    Body { left: usize },
    Ended,
}

pub(crate) struct Record {
    wire: Wire,
    flaws: Flaws,
    incoming: Incoming,
    outgoing: Vec<u8>,
    sent: usize,
    finished: bool,
}

impl Record {
    /// Writes what is waiting to the pipe.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            let n = ready!(Pin::new(&mut self.wire).poll_write(cx, &self.outgoing[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        self.outgoing.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    fn fill_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Incoming::Header { bytes, have } = &mut self.incoming else {
            return Poll::Ready(Ok(()));
        };
        let mut buf = ReadBuf::new(&mut bytes[*have..]);
        let outcome = ready!(Pin::new(&mut self.wire).poll_read(cx, &mut buf));
        let n = buf.filled().len();
        let between = *have == 0;
        let lenient =
            self.flaws == Flaws::CutIsEof || self.flaws == Flaws::CutBetweenRecordsIsEof && between;
        match outcome {
            Ok(()) if n > 0 => *have += n,
            Ok(()) | Err(_) if self.flaws == Flaws::CutHangs => return Poll::Pending,
            Ok(()) | Err(_) if lenient => {
                self.incoming = Incoming::Ended;
                return Poll::Ready(Ok(()));
            }
            Ok(()) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return Poll::Ready(Err(error)),
        }
        if *have == 2 || self.flaws == Flaws::SplitHeader {
            let left = usize::from(u16::from_be_bytes(*bytes));
            self.incoming = if left == 0 {
                Incoming::Ended
            } else {
                Incoming::Body { left }
            };
        }
        Poll::Ready(Ok(()))
    }

    fn read_body(
        &mut self,
        left: usize,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = vec![0; left.min(buf.remaining())];
        let mut piece = ReadBuf::new(&mut piece);
        let poll = Pin::new(&mut self.wire).poll_read(cx, &mut piece);
        if poll.is_pending() && self.flaws == Flaws::PendingForgetsHeader {
            self.incoming = Incoming::Header {
                bytes: [0; 2],
                have: 0,
            };
        }
        let outcome = ready!(poll);
        let n = piece.filled().len();
        if outcome.is_err() || n == 0 {
            if self.flaws == Flaws::CutIsEof {
                self.incoming = Incoming::Ended;
                return Poll::Ready(Ok(()));
            }
            outcome?;
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        buf.put_slice(piece.filled());
        self.incoming = match left - n {
            0 => Incoming::Header {
                bytes: [0; 2],
                have: 0,
            },
            _ if self.flaws == Flaws::BodyStartsAnew => Incoming::Body { left },
            left => Incoming::Body { left },
        };
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Record {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match self.incoming {
                Incoming::Ended => return Poll::Ready(Ok(())),
                Incoming::Body { left } => return self.read_body(left, cx, buf),
                Incoming::Header { .. } => ready!(self.fill_header(cx))?,
            }
        }
    }
}

impl AsyncWrite for Record {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_drain(cx))?;
        let n = buf.len().min(RECORD);
        if n == 0 {
            return Poll::Ready(Ok(0));
        }
        let len = u16::try_from(n).unwrap_or(u16::MAX);
        self.outgoing.extend_from_slice(&len.to_be_bytes());
        self.outgoing.extend_from_slice(&buf[..n]);
        if !matches!(
            self.flaws,
            Flaws::SendsOnlyOnFlush | Flaws::FlushDoesNothing
        ) {
            // Pending is no answer here: the bytes are taken. The waker is served by the next write, flush or shutdown.
            if let Poll::Ready(Err(error)) = self.poll_drain(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flaws == Flaws::FlushDoesNothing {
            return Poll::Ready(Ok(()));
        }
        match self.poll_drain(cx)? {
            Poll::Pending if self.flaws != Flaws::FlushLies => return Poll::Pending,
            Poll::Pending => return Poll::Ready(Ok(())),
            Poll::Ready(()) => {}
        }
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.finished && self.flaws == Flaws::SecondShutdownIsDone {
            return Poll::Ready(Ok(()));
        }
        if !self.finished || self.flaws == Flaws::EndTwice && self.outgoing.is_empty() {
            self.finished = true;
            self.outgoing.extend_from_slice(&[0, 0]);
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.wire).poll_flush(cx)
    }
}

/// The most bytes of one record: far below the two-byte length, so that cuts fall into many of them.
const RECORD: usize = 4096;
