use super::mutant;
use crate::mutants::Mutant;
use crate::mutants::waking::{Flaw, flawed};

pub(super) static MUTANTS: &[Mutant] = &[
    mutant(
        "shared_waker",
        "both directions share one waker",
        "wake.rw_independent",
        || flawed(Flaw::SharedWaker),
    ),
    mutant(
        "first_waker_kept",
        "an operation that moves to another task wakes the first",
        "wake.last_registered",
        || flawed(Flaw::FirstWakerKept),
    ),
    mutant(
        "writer_needs_reader",
        "a writer is woken only when somebody reads the same end",
        "wake.write_only",
        || flawed(Flaw::WriterNeedsReader),
    ),
    mutant(
        "reader_needs_writer",
        "a reader is woken only when somebody writes the same end",
        "wake.read_only",
        || flawed(Flaw::ReaderNeedsWriter),
    ),
    mutant(
        "busy_loop",
        "a pending operation wakes itself",
        "wake.no_busy_loop",
        || flawed(Flaw::BusyLoop),
    ),
    mutant(
        "waker_leaked",
        "wakers are never given back",
        "wake.dropped",
        || flawed(Flaw::WakerLeaked),
    ),
    mutant(
        "end_does_not_wake",
        "the peer's end wakes nobody",
        "wake.on_eof",
        || flawed(Flaw::EndDoesNotWake),
    ),
    mutant(
        "poisoned_by_panic",
        "a waker that panics leaves a poisoned lock",
        "wake.panic_safe",
        || flawed(Flaw::PoisonedByPanic),
    ),
    mutant(
        "wakes_under_lock",
        "wakers are called under the lock that a poll takes",
        "wake.reentrant",
        || flawed(Flaw::WakesUnderLock),
    ),
];
