//! The way out: frames become batches, and batches one write each.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use crate::link::{Link, now};
use crate::machine::Machine;
use crate::session::Frame;

/// Frames on their way into the transport.
///
/// It holds little, and only what the transport is about to take: a frame that is chosen late is chosen better. While
/// the transport takes whole batches they grow to 256 KiB; when it takes a part they fall to as much, 2 KiB at least.
#[derive(Debug)]
pub(super) struct Outbox {
    frames: VecDeque<Frame>,
    /// Bytes of the first frame that are written.
    offset: usize,
    /// Says whether the session had no frame beyond these.
    filled: Filled,
    limit: usize,
    gather: Gather,
    /// Frames that the transport has taken.
    written: Vec<Frame>,
    /// The newest of them that is not flushed, and the newest that is.
    unflushed: Option<u64>,
    flushed: Option<u64>,
}

/// Says whether a batch is all that there is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Filled {
    All,
    /// Nothing was taken: somebody waits for a flush of what is written.
    FlushFirst,
    Part,
}

/// How frames become one write.
#[derive(Debug)]
enum Gather {
    /// The transport takes them as they lie.
    Vectored,
    /// The transport takes one slice (TLS): they are copied together.
    Copied(BytesMut),
}

impl Outbox {
    pub(super) fn new(vectored: bool) -> Self {
        Self {
            frames: VecDeque::new(),
            offset: 0,
            filled: Filled::All,
            limit: BATCH_START,
            gather: if vectored {
                Gather::Vectored
            } else {
                Gather::Copied(BytesMut::new())
            },
            written: Vec::new(),
            unflushed: None,
            flushed: None,
        }
    }

    /// Says whether everything is written and flushed.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.unflushed.is_none()
    }

    /// Says whether there is a batch that is not written, or not all of it.
    pub(super) fn has_batch(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Says whether everything is written, and the session had no more when it was asked last.
    pub(super) fn has_all(&self) -> bool {
        self.frames.is_empty() && self.filled == Filled::All
    }

    /// Gives written frames back, and tells who waits for their flush.
    pub(super) fn report(&mut self, session: &mut Machine) {
        for frame in self.written.drain(..) {
            session.recycle(frame);
        }
        if let Some(ticket) = self.flushed.take() {
            session.handle_flushed(ticket);
        }
    }

    /// Takes a batch from the session.
    pub(super) fn fill(&mut self, link: &Link) -> Filled {
        self.filled = link.with(|state, _| {
            self.report(&mut state.session);
            if self.unflushed.is_some() && state.session.wants_flush() {
                return Filled::FlushFirst;
            }
            if !state.session.has_output() {
                return Filled::All;
            }
            let now = now();
            let mut room = self.limit;
            while room > 0 && self.frames.len() < SLICES / 2 {
                let Some(frame) = state.session.poll_transmit(now, room) else {
                    return Filled::All;
                };
                room = room.saturating_sub(frame.head().len() + frame.payload().len());
                self.frames.push_back(frame);
            }
            Filled::Part
        });
        if let Gather::Copied(buffer) = &mut self.gather {
            for frame in &self.frames {
                buffer.extend_from_slice(frame.head());
                buffer.extend_from_slice(frame.payload());
            }
        }
        self.filled
    }

    /// Writes once; how many bytes.
    pub(super) fn poll_write<T: AsyncWrite>(
        &mut self,
        transport: Pin<&mut T>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let written = match &self.gather {
            Gather::Vectored => {
                let mut small = [0; SMALL];
                if let Some(bytes) = self.gather(&mut small) {
                    ready!(transport.poll_write(cx, bytes))?
                } else {
                    let mut slices = [IoSlice::new(&[]); SLICES];
                    let count = self.slices(&mut slices);
                    ready!(transport.poll_write_vectored(cx, &slices[..count]))?
                }
            }
            Gather::Copied(buffer) => ready!(transport.poll_write(cx, buffer))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    /// Flushes what the transport took.
    pub(super) fn poll_flush<T: AsyncWrite>(
        &mut self,
        transport: Pin<&mut T>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unflushed.is_some() {
            ready!(transport.poll_flush(cx))?;
            self.flushed = self.unflushed.take();
        }
        Poll::Ready(Ok(()))
    }

    /// Copies what is not written yet together if it is small: the kernel takes longer over two slices than we over
    /// some bytes.
    fn gather<'a>(&self, small: &'a mut [u8; SMALL]) -> Option<&'a [u8]> {
        let mut len = 0;
        for frame in &self.frames {
            for part in [frame.head(), frame.payload()] {
                let end = len + part.len();
                small.get_mut(len..end)?.copy_from_slice(part);
                len = end;
            }
        }
        small.get(self.offset..len)
    }

    /// Lays out what is not written yet.
    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let mut skip = self.offset;
        let mut count = 0;
        for frame in &self.frames {
            for part in [frame.head(), frame.payload()] {
                let rest = part.get(skip..).unwrap_or_default();
                skip = skip.saturating_sub(part.len());
                if !rest.is_empty() && count < SLICES {
                    slices[count] = IoSlice::new(rest);
                    count += 1;
                }
            }
        }
        count
    }

    /// Gives up what served batches, unless there is one.
    pub(super) fn give_up_memory(&mut self) {
        if self.frames.is_empty() && self.written.is_empty() {
            self.frames = VecDeque::new();
            self.written = Vec::new();
            if let Gather::Copied(buffer) = &mut self.gather {
                *buffer = BytesMut::new();
            }
        }
    }

    /// Notes that some bytes are written. What is unflushed is told by whole batches.
    fn advance(&mut self, written: usize) {
        if let Gather::Copied(buffer) = &mut self.gather {
            buffer.advance(written.min(buffer.len()));
        }
        self.offset += written;
        while let Some(frame) = self.frames.front() {
            let len = frame.head().len() + frame.payload().len();
            if self.offset < len {
                self.limit = written.clamp(BATCH_MIN, BATCH_MAX);
                return;
            }
            self.offset -= len;
            self.unflushed = Some(frame.ticket());
            self.written.extend(self.frames.pop_front());
        }
        self.limit = (self.limit * 2).min(BATCH_MAX);
    }
}

/// Bytes of the first batch.
const BATCH_START: usize = 16 * 1024;
/// Bytes of one batch while the transport takes but a part of it: 0.1 ms at 20 MB/s.
const BATCH_MIN: usize = 2 * 1024;
/// Bytes of one batch while the transport takes all of it.
const BATCH_MAX: usize = 256 * 1024;
/// Bytes that are copied together.
const SMALL: usize = 512;
/// Slices of one vectored write; a frame has two.
const SLICES: usize = 64;
