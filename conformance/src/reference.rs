//! Connections that keep every promise: what the mutants are made from, and what the suite is checked against.

mod pipe;
mod record;
mod session;
mod yamux;

pub(crate) use pipe::raw;
pub use pipe::{REFERENCE_CAPACITY, reference};
pub use record::record;
pub(crate) use record::{Flaws, record_with};
pub(crate) use session::{Flaw as SessionFlaw, Sessions};
pub use session::{SESSION_BOUND, SESSION_STREAMS, sessions};
pub use yamux::YamuxFrames;
