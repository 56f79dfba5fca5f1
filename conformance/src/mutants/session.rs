//! Faults of a multiplexer: the reference session with one of its flaws.

use crate::caps::{Cap, Caps};
use crate::reference::{SESSION_BOUND, SESSION_STREAMS, SessionFlaw, Sessions};
use crate::target::Target;

/// The reference session with a flaw in both sides.
pub(super) fn flawed(flaw: SessionFlaw) -> Target {
    Target::mux("mutant", Sessions(flaw), SESSION_CAPS)
}

/// What the reference session, and so every mutant made from it, claims.
pub(crate) const SESSION_CAPS: Caps = Caps::of(&[
    Cap::BothOpen,
    Cap::CutVisible,
    Cap::FlushOnWire,
    Cap::Frames,
    Cap::GoAway,
    Cap::HalfClose,
    Cap::InMemory,
    Cap::Layered,
    Cap::OneConnection,
    Cap::PeerGone,
    Cap::Ping,
    Cap::ReentrantWake,
    Cap::ResetVisible,
    Cap::SessionClose,
    Cap::Yields,
])
.bounded(SESSION_BOUND)
.max_streams(SESSION_STREAMS);
