//! Connections that keep every promise: what the mutants are made from, and what the suite is checked against.

mod pipe;
mod record;

pub(crate) use pipe::raw;
pub use pipe::{REFERENCE_CAPACITY, reference};
pub use record::record;
pub(crate) use record::{Flaws, record_with};
