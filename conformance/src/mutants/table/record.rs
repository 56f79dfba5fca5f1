use super::mutant;
use crate::caps::{Cap, Caps};
use crate::mutants::{Mutant, REFERENCE_CAPS};
use crate::pair::{Pair, Wire, over};
use crate::reference::{Flaws, raw, record_with};
use crate::target::Target;

pub(super) static MUTANTS: &[Mutant] = &[
    mutant(
        "cut_is_eof",
        "a dead transport is a clean end",
        "cut.transport_is_error",
        || record(Flaws::CutIsEof),
    ),
    mutant(
        "cut_between_records_is_eof",
        "a transport that dies between two records is a clean end",
        "cut.every_byte",
        || record(Flaws::CutBetweenRecordsIsEof),
    ),
    mutant(
        "end_twice",
        "every shutdown writes an end",
        "shutdown.one_fin",
        || record(Flaws::EndTwice),
    ),
    mutant(
        "flush_lies",
        "a flush does not wait for the transport",
        "flush.pending_under_backpressure",
        || record(Flaws::FlushLies),
    ),
    mutant(
        "sends_only_on_flush",
        "bytes stay behind until the next flush",
        "flush.no_data_lost_if_never_called",
        || record(Flaws::SendsOnlyOnFlush),
    ),
    mutant(
        "split_header",
        "a header is expected in one read",
        "io.one_byte",
        || record(Flaws::SplitHeader),
    ),
    mutant(
        "cut_hangs",
        "after the transport has died reads are pending for ever",
        "cut.wakes_parked",
        || record(Flaws::CutHangs),
    ),
    mutant(
        "body_starts_anew",
        "a body that came in part is taken to be whole again",
        "io.chopped",
        || record(Flaws::BodyStartsAnew),
    ),
    mutant(
        "pending_forgets_header",
        "a header whose body has not come is forgotten",
        "io.pending_storm",
        || record(Flaws::PendingForgetsHeader),
    ),
    mutant(
        "flush_does_nothing",
        "a flush does nothing",
        "flush.progress",
        || record(Flaws::FlushDoesNothing),
    ),
    mutant(
        "second_shutdown_is_done",
        "a second shutdown is done although bytes wait",
        "cancel.shutdown",
        || record(Flaws::SecondShutdownIsDone),
    ),
    mutant(
        "unbounded_queue",
        "unread bytes are taken without end",
        "bp.bounded",
        unbounded,
    ),
];

fn record(flaws: Flaws) -> Target {
    let make = move |a: Wire, b: Wire| {
        let (a, b) = (record_with(a, flaws), record_with(b, flaws));
        std::future::ready(Ok(Pair::new(a, b)))
    };
    Target::pairs("mutant", over(make), RECORD_CAPS)
}

fn unbounded() -> Target {
    let make = || async {
        let (a, b) = raw(usize::MAX);
        Ok(Pair::new(a, b))
    };
    let caps = REFERENCE_CAPS
        .without(Cap::Addresses)
        .without(Cap::CloseHandle)
        .without(Cap::Deadlines)
        .without(Cap::ResetHandle);
    Target::pairs("mutant", make, caps)
}

/// What the record layer claims.
const RECORD_CAPS: Caps = Caps::of(&[
    Cap::CutVisible,
    Cap::FlushOnWire,
    Cap::HalfClose,
    Cap::InMemory,
    Cap::Layered,
    Cap::PeerGone,
    Cap::ResetVisible,
]);
