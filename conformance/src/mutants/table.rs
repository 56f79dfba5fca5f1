//! The mutants by name.

use super::control::{self, Flaw as Control};
use super::session::{self, Flaw as Session};
use super::stream::{self, Flaw as Stream};
use super::waking::{self, Flaw as Waking};
use super::{Mutant, REFERENCE_CAPS};
use crate::caps::{Cap, Caps};
use crate::pair::{Pair, Wire, over};
use crate::reference::{Flaws as Record, raw, record_with};
use crate::target::Target;

pub(super) static MUTANTS: &[Mutant] = &[
    mutant(
        "byte_lost_at_64k",
        "a byte is lost at 64 KiB",
        "io.bulk",
        || stream::flawed(Stream::ByteLostAt64K),
    ),
    mutant(
        "byte_repeated_at_64k",
        "a byte is repeated over its neighbour at 64 KiB",
        "io.bulk",
        || stream::flawed(Stream::ByteRepeatedAt64K),
    ),
    mutant(
        "overreports_writes",
        "a short write reports one byte more than it took",
        "io.bulk",
        || stream::flawed(Stream::OverreportsWrites),
    ),
    mutant(
        "odd_writes_lose_a_byte",
        "a write of one byte more than a page loses its last byte",
        "io.chunk_matrix",
        || stream::flawed(Stream::OddWritesLoseAByte),
    ),
    mutant(
        "zero_read_pends",
        "a read into no room is pending while data waits",
        "io.zero_read",
        || stream::flawed(Stream::ZeroReadPends),
    ),
    mutant(
        "zero_read_consumes",
        "a read into no room takes a byte",
        "io.zero_read",
        || stream::flawed(Stream::ZeroReadConsumes),
    ),
    mutant(
        "zero_write_ends",
        "a write of nothing ends the stream",
        "io.zero_write",
        || stream::flawed(Stream::ZeroWriteEnds),
    ),
    mutant(
        "zero_write_pends",
        "a write of nothing is pending",
        "io.zero_write",
        || stream::flawed(Stream::ZeroWritePends),
    ),
    mutant(
        "vectored_sum",
        "a vectored write takes one buffer and reports them all",
        "io.vectored_eq",
        || stream::flawed(Stream::VectoredSum),
    ),
    mutant(
        "vectored_empty_first",
        "a vectored write takes its first buffer even where it is empty",
        "io.vectored_eq",
        || stream::flawed(Stream::VectoredEmptyFirst),
    ),
    mutant(
        "vectored_first_only",
        "a vectored write takes one buffer although it claims more",
        "io.vectored_honest",
        || stream::flawed(Stream::VectoredFirstOnly),
    ),
    mutant(
        "read_clears_buffer",
        "a read clears what the buffer holds",
        "io.readbuf_discipline",
        || stream::flawed(Stream::ReadClearsBuffer),
    ),
    mutant(
        "fills_the_buffer",
        "a read waits until its buffer is full",
        "io.read_partial",
        || stream::flawed(Stream::FillsTheBuffer),
    ),
    mutant(
        "end_dropped",
        "a shutdown is not sent",
        "eof.after_all_data",
        || stream::flawed(Stream::EndDropped),
    ),
    mutant(
        "end_after_64k",
        "the end comes after 64 KiB",
        "eof.after_all_data",
        || stream::flawed(Stream::EndAfter64K),
    ),
    mutant(
        "end_only_once",
        "a read after the end is pending",
        "eof.sticky",
        || stream::flawed(Stream::EndOnlyOnce),
    ),
    mutant(
        "end_then_error",
        "a read after the end fails",
        "eof.sticky",
        || stream::flawed(Stream::EndThenError),
    ),
    mutant(
        "empty_stream_never_ends",
        "the end of an empty stream is not sent",
        "eof.empty",
        || stream::flawed(Stream::EmptyStreamNeverEnds),
    ),
    mutant(
        "shutdown_ends_both",
        "our shutdown ends our reads as well",
        "half.read_after_own_shutdown",
        || stream::flawed(Stream::ShutdownEndsBoth),
    ),
    mutant(
        "stops_reading_after_own_end",
        "after our shutdown only a window is read",
        "half.read_after_own_shutdown",
        || stream::flawed(Stream::StopsReadingAfterOwnEnd),
    ),
    mutant(
        "peer_end_ends_writes",
        "the peer's end ends our writes as well",
        "half.write_after_peer_fin",
        || stream::flawed(Stream::PeerEndEndsWrites),
    ),
    mutant(
        "stops_writing_after_peer_end",
        "after the peer's end only a window is written",
        "half.write_after_peer_fin",
        || stream::flawed(Stream::StopsWritingAfterPeerEnd),
    ),
    mutant(
        "crossed_ends_are_an_error",
        "an end that meets our own is an error",
        "half.at_once",
        || stream::flawed(Stream::CrossedEndsAreAnError),
    ),
    mutant(
        "second_shutdown_fails",
        "a second shutdown fails",
        "shutdown.idempotent",
        || stream::flawed(Stream::SecondShutdownFails),
    ),
    mutant(
        "shutdown_discards",
        "a shutdown forgets bytes that were not flushed",
        "shutdown.flushes",
        || stream::flawed(Stream::ShutdownDiscardsSmallWrites),
    ),
    mutant(
        "write_after_shutdown_taken",
        "a write after our shutdown succeeds",
        "write.after_shutdown",
        || stream::flawed(Stream::WriteAfterShutdownTaken),
    ),
    mutant(
        "write_after_shutdown_hangs",
        "a write after our shutdown is pending for ever",
        "write.after_shutdown",
        || stream::flawed(Stream::WriteAfterShutdownHangs),
    ),
    mutant(
        "drop_discards",
        "a drop after a shutdown resets",
        "drop.after_shutdown_delivers_all",
        || stream::flawed(Stream::DropDiscards),
    ),
    mutant(
        "drop_is_end",
        "a drop without a shutdown is a clean end",
        "drop.without_shutdown_is_reset",
        || stream::flawed(Stream::DropIsEnd),
    ),
    mutant(
        "responder_drop_is_end",
        "a drop after the peer's end is a clean end",
        "drop.half_closed_responder",
        || stream::flawed(Stream::ResponderDropIsEnd),
    ),
    mutant(
        "writer_stuck_when_peer_gone",
        "a write to a peer that is gone is pending for ever",
        "peer_gone.writer_unblocks",
        || stream::flawed(Stream::WriterStuckWhenPeerGone),
    ),
    mutant(
        "reset_is_end",
        "a reset is read as a clean end",
        "reset.is_not_eof",
        || stream::flawed(Stream::ResetIsEnd),
    ),
    mutant(
        "holds_small_writes",
        "small writes wait for a flush",
        "flush.no_data_lost_if_never_called",
        || stream::flawed(Stream::HoldsSmallWrites),
    ),
    mutant(
        "never_resumes",
        "a writer that waited often enough waits for ever",
        "bp.resume",
        || stream::flawed(Stream::NeverResumes),
    ),
    mutant(
        "cancelled_read_loses_byte",
        "a read that was dropped takes a byte with it",
        "cancel.read",
        || stream::flawed(Stream::CancelledReadLosesByte),
    ),
    mutant(
        "cancelled_write_is_sent",
        "a write that was dropped is sent in part",
        "cancel.write",
        || stream::flawed(Stream::CancelledWriteIsSent),
    ),
    mutant(
        "shared_waker",
        "both directions share one waker",
        "wake.rw_independent",
        || waking::flawed(Waking::SharedWaker),
    ),
    mutant(
        "first_waker_kept",
        "an operation that moves to another task wakes the first",
        "wake.last_registered",
        || waking::flawed(Waking::FirstWakerKept),
    ),
    mutant(
        "writer_needs_reader",
        "a writer is woken only when somebody reads the same end",
        "wake.write_only",
        || waking::flawed(Waking::WriterNeedsReader),
    ),
    mutant(
        "reader_needs_writer",
        "a reader is woken only when somebody writes the same end",
        "wake.read_only",
        || waking::flawed(Waking::ReaderNeedsWriter),
    ),
    mutant(
        "busy_loop",
        "a pending operation wakes itself",
        "wake.no_busy_loop",
        || waking::flawed(Waking::BusyLoop),
    ),
    mutant(
        "waker_leaked",
        "wakers are never given back",
        "wake.dropped",
        || waking::flawed(Waking::WakerLeaked),
    ),
    mutant(
        "end_does_not_wake",
        "the peer's end wakes nobody",
        "wake.on_eof",
        || waking::flawed(Waking::EndDoesNotWake),
    ),
    mutant(
        "poisoned_by_panic",
        "a waker that panics leaves a poisoned lock",
        "wake.panic_safe",
        || waking::flawed(Waking::PoisonedByPanic),
    ),
    mutant(
        "wakes_under_lock",
        "wakers are called under the lock that a poll takes",
        "wake.reentrant",
        || waking::flawed(Waking::WakesUnderLock),
    ),
    mutant(
        "read_deadline_ignored",
        "read deadlines are ignored",
        "nettest.read_timeout",
        || control::flawed(Control::ReadDeadlineIgnored),
    ),
    mutant(
        "write_deadline_ignored",
        "write deadlines are ignored",
        "nettest.write_timeout",
        || control::flawed(Control::WriteDeadlineIgnored),
    ),
    mutant(
        "deadline_for_both",
        "a read deadline concerns writes as well",
        "nettest.read_timeout",
        || control::flawed(Control::DeadlineForBoth),
    ),
    mutant(
        "timeout_is_would_block",
        "a timeout is reported as WouldBlock",
        "nettest.read_timeout",
        || control::flawed(Control::TimeoutIsWouldBlock),
    ),
    mutant(
        "deadline_does_not_wake",
        "setting a deadline does not wake who waits",
        "nettest.present_timeout",
        || control::flawed(Control::DeadlineDoesNotWake),
    ),
    mutant(
        "timeout_kills_connection",
        "after a timeout nothing works",
        "nettest.future_timeout",
        || control::flawed(Control::TimeoutKillsConnection),
    ),
    mutant(
        "deadline_never_cleared",
        "a deadline cannot be taken back",
        "deadline.clear",
        || control::flawed(Control::DeadlineNeverCleared),
    ),
    mutant(
        "data_beats_deadline",
        "a passed deadline is looked at only where a read would block",
        "deadline.past_beats_data",
        || control::flawed(Control::DataBeatsDeadline),
    ),
    mutant(
        "deadline_not_moved_later",
        "a deadline cannot be moved later",
        "deadline.move_later_while_parked",
        || control::flawed(Control::DeadlineNotMovedLater),
    ),
    mutant(
        "deadline_not_moved_earlier",
        "a deadline cannot be moved earlier",
        "deadline.move_earlier_while_parked",
        || control::flawed(Control::DeadlineNotMovedEarlier),
    ),
    mutant(
        "close_is_nothing",
        "close does nothing",
        "nettest.close_timeout",
        || control::flawed(Control::CloseIsNothing),
    ),
    mutant(
        "close_discards",
        "close discards written data",
        "nettest.basic_io",
        || control::flawed(Control::CloseDiscards),
    ),
    mutant(
        "close_does_not_wake_reader",
        "close leaves a pending read asleep",
        "wake.on_close",
        || control::flawed(Control::CloseDoesNotWakeReader),
    ),
    mutant(
        "close_does_not_wake_writer",
        "close leaves a pending write asleep",
        "close.other_task_wakes_both",
        || control::flawed(Control::CloseDoesNotWakeWriter),
    ),
    mutant(
        "close_not_told_to_peer",
        "the peer does not learn of a close",
        "close.peer_sees_end",
        || control::flawed(Control::CloseNotToldToPeer),
    ),
    mutant(
        "read_after_close_is_end",
        "a read after our close looks like the peer's end",
        "close.ops_after_close_fail",
        || control::flawed(Control::ReadAfterCloseIsEnd),
    ),
    mutant(
        "reset_is_nothing",
        "reset does nothing",
        "reset.is_not_eof",
        || control::flawed(Control::ResetIsNothing),
    ),
    mutant(
        "reset_does_not_wake",
        "a reset wakes nobody",
        "reset.pending_ops_wake",
        || control::flawed(Control::ResetDoesNotWake),
    ),
    mutant(
        "reset_hangs_ourselves",
        "after our own reset our operations are pending for ever",
        "reset.own_ops_fail",
        || control::flawed(Control::ResetHangsOurselves),
    ),
    mutant(
        "address_lost_at_close",
        "a closed end has no address",
        "addr.stable",
        || control::flawed(Control::AddressLostAtClose),
    ),
    mutant(
        "cut_is_eof",
        "a dead transport is a clean end",
        "cut.transport_is_error",
        || record(Record::CutIsEof),
    ),
    mutant(
        "cut_between_records_is_eof",
        "a transport that dies between two records is a clean end",
        "cut.every_byte",
        || record(Record::CutBetweenRecordsIsEof),
    ),
    mutant(
        "end_twice",
        "every shutdown writes an end",
        "shutdown.one_fin",
        || record(Record::EndTwice),
    ),
    mutant(
        "flush_lies",
        "a flush does not wait for the transport",
        "flush.pending_under_backpressure",
        || record(Record::FlushLies),
    ),
    mutant(
        "sends_only_on_flush",
        "bytes stay behind until the next flush",
        "flush.no_data_lost_if_never_called",
        || record(Record::SendsOnlyOnFlush),
    ),
    mutant(
        "split_header",
        "a header is expected in one read",
        "io.one_byte",
        || record(Record::SplitHeader),
    ),
    mutant(
        "cancelled_accept_loses_stream",
        "an accept that was dropped takes a stream with it",
        "cancel.accept",
        || session::flawed(Session::CancelledAcceptLosesStream),
    ),
    mutant(
        "session_close_wakes_nobody",
        "closing a session leaves its streams as they are",
        "close.local_session_close_wakes_streams",
        || session::flawed(Session::CloseWakesNobody),
    ),
    mutant(
        "finished_streams_count",
        "finished streams count against the limit",
        "mux.open_close_storm",
        || session::flawed(Session::FinishedStreamsCount),
    ),
    mutant(
        "one_too_many_kills",
        "one stream too many resets the others",
        "mux.max_streams_is_stream_error",
        || session::flawed(Session::OneTooManyKills),
    ),
    mutant(
        "small_backlog",
        "opening stalls until somebody accepts",
        "mux.accept_backlog",
        || session::flawed(Session::SmallBacklog),
    ),
    mutant(
        "unbounded_queue",
        "unread bytes are taken without end",
        "bp.bounded",
        unbounded,
    ),
];

const fn mutant(
    name: &'static str,
    fault: &'static str,
    named_case: &'static str,
    make: fn() -> Target,
) -> Mutant {
    Mutant {
        name,
        fault,
        named_case,
        make,
    }
}

fn record(flaws: Record) -> Target {
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
    Cap::FlushOnWire,
    Cap::HalfClose,
    Cap::InMemory,
    Cap::Layered,
    Cap::ResetVisible,
]);
