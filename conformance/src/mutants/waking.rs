//! Faults in who is woken.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a mutant is sound but for its one flaw"
)]

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::REFERENCE_CAPS;
use super::control::Forward;
use crate::pair::{End, Pair};
use crate::reference::reference;
use crate::target::Target;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flaw {
    BusyLoop,
    EndDoesNotWake,
    FirstWakerKept,
    PoisonedByPanic,
    ReaderNeedsWriter,
    SharedWaker,
    WakerLeaked,
    WakesUnderLock,
    WriterNeedsReader,
}

/// The reference pair with a flaw in both ends.
pub(super) fn flawed(flaw: Flaw) -> Target {
    let make = move || async move {
        let Pair { a, b, stop } = reference();
        let both = Arc::new(Both::default());
        let wrap = |end: End| {
            let control = Forward(end.control());
            let flawed = Flawed {
                flaw,
                end,
                both: Arc::clone(&both),
                slots: [const { None }; 2],
                stored: Arc::default(),
            };
            End::with_control(flawed, control)
        };
        Ok(Pair::of(wrap(a), wrap(b)).keep(stop))
    };
    Target::pairs("mutant", make, REFERENCE_CAPS)
}

/// What the two ends of a flawed pair share.
#[derive(Default)]
struct Both {
    lock: Mutex<()>,
    muted: AtomicBool,
}

struct Flawed {
    flaw: Flaw,
    end: End,
    both: Arc<Both>,
    /// Wakers that were kept: reader's, writer's.
    slots: [Option<Waker>; 2],
    stored: Arc<Mutex<Option<Waker>>>,
}

const READ: usize = 0;
const WRITE: usize = 1;

/// Passes a wake-up on, unless the pair is muted.
struct Mutable {
    waker: Waker,
    both: Arc<Both>,
}

impl Wake for Mutable {
    fn wake(self: Arc<Self>) {
        if !self.both.muted.load(Ordering::SeqCst) {
            self.waker.wake_by_ref();
        }
    }
}

/// Wakes whoever is in the one slot.
struct OneSlot(Arc<Mutex<Option<Waker>>>);

impl Wake for OneSlot {
    fn wake(self: Arc<Self>) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Flawed {
    /// The waker that the sound connection is given in place of the task's own.
    fn register(&mut self, way: usize, cx: &Context<'_>) -> Waker {
        let own = cx.waker().clone();
        match self.flaw {
            Flaw::SharedWaker => {
                *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = Some(own);
                Waker::from(Arc::new(OneSlot(Arc::clone(&self.stored))))
            }
            Flaw::FirstWakerKept => self.slots[way].get_or_insert(own).clone(),
            Flaw::EndDoesNotWake => Waker::from(Arc::new(Mutable {
                waker: own,
                both: Arc::clone(&self.both),
            })),
            Flaw::WakerLeaked => {
                std::mem::forget(own.clone());
                own
            }
            Flaw::ReaderNeedsWriter if way == READ => self.keep(READ, own),
            Flaw::WriterNeedsReader if way == WRITE => self.keep(WRITE, own),
            _ => own,
        }
    }

    /// Keeps the task's waker for the other direction to call, and gives the connection none.
    fn keep(&mut self, way: usize, own: Waker) -> Waker {
        self.slots[way] = Some(own);
        Waker::noop().clone()
    }

    /// Polls the sound connection in the flawed way.
    fn poll<T>(
        &mut self,
        way: usize,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut End, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match (self.flaw, way) {
            (Flaw::ReaderNeedsWriter, WRITE) | (Flaw::WriterNeedsReader, READ) => {
                if let Some(waker) = self.slots[1 - way].take() {
                    waker.wake();
                }
            }
            _ => {}
        }
        let waker = self.register(way, cx);
        let both = Arc::clone(&self.both);
        let guard = match self.flaw {
            // A poll from within a wake-up finds the lock taken; to wait would be to wait for ever.
            Flaw::WakesUnderLock => match both.lock.try_lock() {
                Ok(guard) => Some(guard),
                Err(_) => return Poll::Pending,
            },
            Flaw::PoisonedByPanic => match both.lock.lock() {
                Ok(guard) => Some(guard),
                Err(_) => return Poll::Pending,
            },
            _ => None,
        };
        let poll = poll(&mut self.end, &mut Context::from_waker(&waker));
        drop(guard);
        if poll.is_ready() {
            self.slots[way] = None;
        } else if self.flaw == Flaw::BusyLoop {
            cx.waker().wake_by_ref();
        }
        poll
    }
}

impl AsyncRead for Flawed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(READ, cx, |end, cx| Pin::new(end).poll_read(cx, buf))
    }
}

impl AsyncWrite for Flawed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(WRITE, cx, |end, cx| Pin::new(end).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.end).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flaw == Flaw::EndDoesNotWake {
            self.both.muted.store(true, Ordering::SeqCst);
        }
        let poll = Pin::new(&mut self.end).poll_shutdown(cx);
        self.both.muted.store(false, Ordering::SeqCst);
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(WRITE, cx, |end, cx| {
            Pin::new(end).poll_write_vectored(cx, bufs)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
