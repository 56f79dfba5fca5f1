use super::mutant;
use crate::mutants::Mutant;
use crate::mutants::session::flawed;
use crate::reference::SessionFlaw as Flaw;

pub(super) static MUTANTS: &[Mutant] = &[
    mutant(
        "empty_write_is_frame",
        "a write of nothing sends an empty frame",
        "io.zero_write_silent",
        || flawed(Flaw::EmptyWriteIsFrame),
    ),
    mutant(
        "two_writes",
        "a frame's header and its body are written one after the other",
        "flush.one_write",
        || flawed(Flaw::TwoWrites),
    ),
    mutant(
        "lazy_open",
        "a stream is announced by its first write",
        "mux.acceptor_speaks_first",
        || flawed(Flaw::LazyOpen),
    ),
    mutant(
        "same_ids_on_both_sides",
        "both sides number their streams alike",
        "mux.both_open_simultaneously",
        || flawed(Flaw::SameIdsOnBothSides),
    ),
    mutant(
        "small_backlog",
        "the ninth stream that waits to be accepted is refused",
        "mux.accept_backlog",
        || flawed(Flaw::SmallBacklog),
    ),
    mutant(
        "finished_streams_count",
        "finished streams count against the limit",
        "mux.open_close_storm",
        || flawed(Flaw::FinishedStreamsCount),
    ),
    mutant(
        "one_too_many_kills",
        "one stream too many ends the session",
        "mux.max_streams_is_stream_error",
        || flawed(Flaw::OneTooManyKills),
    ),
    mutant(
        "no_stream_limit",
        "there is no limit where one is claimed",
        "mux.max_streams_is_stream_error",
        || flawed(Flaw::NoStreamLimit),
    ),
    mutant(
        "ids_run_out",
        "stream ids run out after 32,768 streams",
        "mux.id_reuse_and_exhaustion",
        || flawed(Flaw::IdsRunOut),
    ),
    mutant(
        "shared_inbox",
        "nine unread frames of one stream block the session",
        "bp.slow_reader_isolated",
        || flawed(Flaw::SharedInbox),
    ),
    mutant(
        "frame_fair",
        "streams take turns by frames, however small",
        "mux.fair",
        || flawed(Flaw::FrameFair),
    ),
    mutant(
        "stages_ahead",
        "a MiB is chosen before the transport takes it",
        "mux.latency_under_bulk",
        || flawed(Flaw::StagesAhead),
    ),
    mutant(
        "control_waits",
        "openings and window updates wait behind data",
        "mux.control_not_blocked",
        || flawed(Flaw::ControlWaits),
    ),
    mutant(
        "never_yields",
        "a stream that is always ready never yields",
        "mux.coop",
        || flawed(Flaw::NeverYields),
    ),
    mutant(
        "silence_kills",
        "a session without a word for 75 s is ended",
        "mux.silent_acceptor",
        || flawed(Flaw::SilenceKills),
    ),
    mutant(
        "go_away_drops_streams",
        "the peer's go-away ends open streams",
        "mux.goaway_drains",
        || flawed(Flaw::GoAwayDropsStreams),
    ),
    mutant(
        "go_away_ignored",
        "streams are opened in spite of the peer's go-away",
        "mux.goaway_drains",
        || flawed(Flaw::GoAwayIgnored),
    ),
    mutant(
        "pong_waits",
        "a ping is not answered while bytes are unread",
        "mux.ping_under_load",
        || flawed(Flaw::PongWaits),
    ),
    mutant(
        "strange_pong_kills",
        "an answer that nobody asked for ends the session",
        "mux.unsolicited_pong",
        || flawed(Flaw::StrangePongKills),
    ),
    mutant(
        "blocked_by_abandoned_open",
        "an open that was dropped blocks all others",
        "cancel.open",
        || flawed(Flaw::BlockedByAbandonedOpen),
    ),
    mutant(
        "abandoned_dial_takes_answer",
        "the answer to an open that was dropped goes to the next",
        "cancel.dial",
        || flawed(Flaw::AbandonedDialTakesAnswer),
    ),
    mutant(
        "cancelled_accept_loses_stream",
        "an accept that was dropped takes a stream with it",
        "cancel.accept",
        || flawed(Flaw::AcceptLosesStream),
    ),
    mutant(
        "session_close_wakes_nobody",
        "closing a session leaves its streams as they are",
        "close.local_session_close_wakes_streams",
        || flawed(Flaw::CloseWakesNobody),
    ),
    mutant(
        "stream_buffers",
        "every stream has a buffer of 64 KiB",
        "mem.idle_stream",
        || flawed(Flaw::StreamBuffers),
    ),
    mutant(
        "remembers_streams",
        "finished streams are remembered",
        "mem.no_leak_after_n_open_close",
        || flawed(Flaw::RemembersStreams),
    ),
    mutant(
        "panics_on_big_frame",
        "a frame beyond the window panics",
        "fuzz.bytes_never_panic",
        || flawed(Flaw::PanicsOnBigFrame),
    ),
    mutant(
        "allocates_by_header",
        "a buffer of the length that a header claims",
        "fuzz.alloc_bound",
        || flawed(Flaw::AllocatesByHeader),
    ),
    mutant(
        "answers_threefold",
        "three resets for every frame of an unknown stream",
        "fuzz.output_amplification",
        || flawed(Flaw::AnswersThreefold),
    ),
    mutant(
        "split_session_header",
        "a frame's header is expected in one read",
        "fuzz.split_invariance",
        || flawed(Flaw::SplitHeader),
    ),
];
