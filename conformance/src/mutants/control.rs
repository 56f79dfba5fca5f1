//! Faults in deadlines, close and reset.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a mutant is sound but for its one flaw"
)]

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::REFERENCE_CAPS;
use crate::pair::{Control, End, Pair};
use crate::reference::reference;
use crate::target::Target;

/// Passes everything on to a handle that is shared.
pub(super) struct Forward(pub(super) Arc<dyn Control>);

impl Control for Forward {
    fn close(&self) {
        self.0.close();
    }

    fn reset(&self) {
        self.0.reset();
    }

    fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.0.set_read_deadline(deadline);
    }

    fn set_write_deadline(&self, deadline: Option<Instant>) {
        self.0.set_write_deadline(deadline);
    }

    fn local_addr(&self) -> Option<String> {
        self.0.local_addr()
    }

    fn peer_addr(&self) -> Option<String> {
        self.0.peer_addr()
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flaw {
    AddressLostAtClose,
    CloseDiscards,
    CloseDoesNotWakeReader,
    CloseDoesNotWakeWriter,
    CloseIsNothing,
    CloseNotToldToPeer,
    DataBeatsDeadline,
    DeadlineDoesNotWake,
    DeadlineForBoth,
    DeadlineNeverCleared,
    DeadlineNotMovedEarlier,
    DeadlineNotMovedLater,
    DeadlineOnlyAtStart,
    DeadlinesRunOut,
    PendingReadTimeoutIsInterrupted,
    PendingWriteTimeoutIsInterrupted,
    ReadAfterCloseIsEnd,
    ReadDeadlineIgnored,
    ReadTimeoutFailsNextWrite,
    ResetDoesNotWake,
    ResetDoesNotWakeReader,
    ResetHangsOurselves,
    ResetIsNothing,
    ResetLeavesHole,
    SecondClosePanics,
    TimeoutIsWouldBlock,
    TimeoutKillsConnection,
    WriteDeadlineIgnored,
    WriteDeadlineOnlyWhenBlocked,
}

/// The reference pair with a flaw in both ends.
pub(super) fn flawed(flaw: Flaw) -> Target {
    let make = move || async move {
        let Pair { a, b, stop } = reference();
        let both = Arc::new(Mute::default());
        let wrap = |end: End| {
            let shared = Arc::new(Shared {
                flaw,
                sound: end.control(),
                mute: Arc::clone(&both),
                closed: AtomicBool::new(false),
                was_reset: AtomicBool::new(false),
                read_deadline: Mutex::default(),
                write_deadline: Mutex::default(),
                settings: AtomicUsize::new(0),
            });
            let flawed = Flawed {
                end,
                shared: Arc::clone(&shared),
                dead: false,
                parked: [false; 2],
                fails_next_write: false,
            };
            End::with_control(flawed, FlawedControl(shared))
        };
        Ok(Pair::of(wrap(a), wrap(b)).keep(stop))
    };
    Target::pairs("mutant", make, REFERENCE_CAPS)
}

/// Which wake-ups of the pair are lost at the moment.
#[derive(Default)]
struct Mute {
    readers: AtomicBool,
    writers: AtomicBool,
    hole: AtomicBool,
}

struct Shared {
    flaw: Flaw,
    sound: Arc<dyn Control>,
    mute: Arc<Mute>,
    closed: AtomicBool,
    was_reset: AtomicBool,
    read_deadline: Mutex<Option<Instant>>,
    write_deadline: Mutex<Option<Instant>>,
    settings: AtomicUsize,
}

impl Shared {
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn deadline(&self) -> MutexGuard<'_, Option<Instant>> {
        self.read_deadline
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write_deadline(&self) -> MutexGuard<'_, Option<Instant>> {
        self.write_deadline
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this setting of a deadline is one too many.
    fn used_up(&self) -> bool {
        let settings = self.settings.fetch_add(1, Ordering::SeqCst);
        self.is(Flaw::DeadlinesRunOut) && settings >= 200
    }

    /// Does something while the chosen wake-ups are lost.
    fn muted(&self, readers: bool, writers: bool, change: impl FnOnce(&dyn Control)) {
        self.mute.readers.store(readers, Ordering::SeqCst);
        self.mute.writers.store(writers, Ordering::SeqCst);
        change(&*self.sound);
        self.mute.readers.store(false, Ordering::SeqCst);
        self.mute.writers.store(false, Ordering::SeqCst);
    }
}

struct FlawedControl(Arc<Shared>);

impl Control for FlawedControl {
    fn close(&self) {
        let again = self.0.closed.swap(true, Ordering::SeqCst);
        assert!(
            !(again && self.0.is(Flaw::SecondClosePanics)),
            "closed twice"
        );
        let sound = &self.0.sound;
        match self.0.flaw {
            Flaw::CloseIsNothing => {}
            Flaw::CloseNotToldToPeer => sound.set_read_deadline(Some(Instant::now())),
            Flaw::CloseDiscards => {
                sound.reset();
                sound.close();
            }
            Flaw::CloseDoesNotWakeReader => self.0.muted(true, false, |sound| sound.close()),
            Flaw::CloseDoesNotWakeWriter => self.0.muted(false, true, |sound| sound.close()),
            _ => sound.close(),
        }
    }

    fn reset(&self) {
        self.0.was_reset.store(true, Ordering::SeqCst);
        match self.0.flaw {
            Flaw::ResetIsNothing => {}
            Flaw::ResetDoesNotWakeReader => self.0.muted(true, false, |sound| sound.reset()),
            Flaw::ResetLeavesHole => {
                self.0.mute.hole.store(true, Ordering::SeqCst);
                self.0.sound.reset();
            }
            Flaw::ResetDoesNotWake => self.0.muted(true, true, |sound| sound.reset()),
            _ => self.0.sound.reset(),
        }
    }

    fn set_read_deadline(&self, deadline: Option<Instant>) {
        let old = std::mem::replace(&mut *self.0.deadline(), deadline);
        let waiting = old.is_some_and(|old| old > Instant::now());
        match self.0.flaw {
            _ if self.0.used_up() => return,
            Flaw::ReadDeadlineIgnored | Flaw::DataBeatsDeadline => return,
            Flaw::DeadlineOnlyAtStart => return,
            Flaw::DeadlineNeverCleared if deadline.is_none() => return,
            Flaw::DeadlineNotMovedLater if waiting && deadline > old => return,
            Flaw::DeadlineNotMovedEarlier if waiting && deadline < old => return,
            Flaw::DeadlineForBoth => self.0.sound.set_write_deadline(deadline),
            Flaw::DeadlineDoesNotWake => {
                self.0
                    .muted(true, true, |sound| sound.set_read_deadline(deadline));
                return;
            }
            _ => {}
        }
        self.0.sound.set_read_deadline(deadline);
    }

    fn set_write_deadline(&self, deadline: Option<Instant>) {
        *self.0.write_deadline() = deadline;
        match self.0.flaw {
            _ if self.0.used_up() => {}
            Flaw::WriteDeadlineIgnored => {}
            // Looked at where a write would block: see `write_then_deadline`.
            Flaw::WriteDeadlineOnlyWhenBlocked => {}
            Flaw::DeadlineDoesNotWake => self
                .0
                .muted(true, true, |sound| sound.set_write_deadline(deadline)),
            _ => self.0.sound.set_write_deadline(deadline),
        }
    }

    fn local_addr(&self) -> Option<String> {
        let lost = self.0.is(Flaw::AddressLostAtClose) && self.0.closed.load(Ordering::SeqCst);
        if lost {
            None
        } else {
            self.0.sound.local_addr()
        }
    }

    fn peer_addr(&self) -> Option<String> {
        self.0.sound.peer_addr()
    }
}

/// Passes a wake-up on, unless its direction is muted.
struct Mutable {
    waker: Waker,
    mute: Arc<Mute>,
    reader: bool,
}

impl Wake for Mutable {
    fn wake(self: Arc<Self>) {
        let muted = if self.reader {
            &self.mute.readers
        } else {
            &self.mute.writers
        };
        if !muted.load(Ordering::SeqCst) {
            self.waker.wake_by_ref();
        }
    }
}

struct Flawed {
    end: End,
    shared: Arc<Shared>,
    dead: bool,
    parked: [bool; 2],
    fails_next_write: bool,
}

impl Flawed {
    fn waker(&self, reader: bool, cx: &Context<'_>) -> Waker {
        Waker::from(Arc::new(Mutable {
            waker: cx.waker().clone(),
            mute: Arc::clone(&self.shared.mute),
            reader,
        }))
    }

    /// Answers without asking the sound connection, where the flaw says so.
    fn instead<T>(&self) -> Option<Poll<io::Result<T>>> {
        let closed = self.shared.closed.load(Ordering::SeqCst);
        match self.shared.flaw {
            Flaw::TimeoutKillsConnection if self.dead => {
                Some(Poll::Ready(Err(ErrorKind::NotConnected.into())))
            }
            Flaw::CloseNotToldToPeer if closed => {
                Some(Poll::Ready(Err(ErrorKind::NotConnected.into())))
            }
            Flaw::ResetHangsOurselves if self.shared.was_reset.load(Ordering::SeqCst) => {
                Some(Poll::Pending)
            }
            _ => None,
        }
    }

    /// Spoils an error of a read (0) or a write (1).
    fn spoil<T>(&mut self, way: usize, outcome: io::Result<T>) -> io::Result<T> {
        let parked = std::mem::take(&mut self.parked[way]);
        let Err(error) = outcome else { return outcome };
        if error.kind() != ErrorKind::TimedOut {
            return Err(error);
        }
        self.dead = true;
        match self.shared.flaw {
            Flaw::TimeoutIsWouldBlock => return Err(ErrorKind::WouldBlock.into()),
            Flaw::PendingReadTimeoutIsInterrupted if parked && way == 0 => {
                return Err(ErrorKind::Interrupted.into());
            }
            Flaw::PendingWriteTimeoutIsInterrupted if parked && way == 1 => {
                return Err(ErrorKind::Interrupted.into());
            }
            Flaw::ReadTimeoutFailsNextWrite if way == 0 => self.fails_next_write = true,
            _ => {}
        }
        Err(error)
    }

    /// Loses what comes next.
    fn fall_into_hole(&mut self, cx: &mut Context<'_>) {
        if self.shared.mute.hole.swap(false, Ordering::SeqCst) {
            let mut lost = [0; 100];
            let _ = Pin::new(&mut self.end).poll_read(cx, &mut ReadBuf::new(&mut lost));
        }
    }

    /// Looks at the deadline only where the write would block.
    fn write_then_deadline(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.sound.set_write_deadline(None);
        if let Poll::Ready(outcome) = Pin::new(&mut self.end).poll_write(cx, buf) {
            return Poll::Ready(outcome);
        }
        let deadline = *self.shared.write_deadline();
        self.shared.sound.set_write_deadline(deadline);
        Pin::new(&mut self.end).poll_write(cx, buf)
    }

    /// Looks at the deadline only where the read would block.
    fn read_then_deadline(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.shared.sound.set_read_deadline(None);
        if Pin::new(&mut self.end).poll_read(cx, buf).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let deadline = *self.shared.deadline();
        self.shared.sound.set_read_deadline(deadline);
        Pin::new(&mut self.end).poll_read(cx, buf)
    }
}

impl AsyncRead for Flawed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(poll) = self.instead() {
            return poll;
        }
        let waker = self.waker(true, cx);
        let mut cx = Context::from_waker(&waker);
        if self.shared.is(Flaw::DataBeatsDeadline) {
            return self.read_then_deadline(&mut cx, buf);
        }
        let passed = self
            .shared
            .deadline()
            .is_some_and(|deadline| deadline <= Instant::now());
        if self.shared.is(Flaw::DeadlineOnlyAtStart) && passed {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        self.fall_into_hole(&mut cx);
        let poll = Pin::new(&mut self.end).poll_read(&mut cx, buf);
        self.parked[0] |= poll.is_pending();
        let outcome = ready!(poll);
        let closed = self.shared.closed.load(Ordering::SeqCst);
        if self.shared.is(Flaw::ReadAfterCloseIsEnd) && closed {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.spoil(0, outcome))
    }
}

impl AsyncWrite for Flawed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(poll) = self.instead() {
            return poll;
        }
        let waker = self.waker(false, cx);
        let mut cx = Context::from_waker(&waker);
        if std::mem::take(&mut self.fails_next_write) {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let poll = match self.shared.flaw {
            Flaw::WriteDeadlineOnlyWhenBlocked => self.write_then_deadline(&mut cx, buf),
            _ => Pin::new(&mut self.end).poll_write(&mut cx, buf),
        };
        self.parked[1] |= poll.is_pending();
        let outcome = ready!(poll);
        Poll::Ready(self.spoil(1, outcome))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.end).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.end).poll_shutdown(cx)
    }
}
