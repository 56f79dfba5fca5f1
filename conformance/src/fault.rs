//! Faulty byte pipes, for the cases of this crate and for anybody's tests.
//!
//! Each wraps an `AsyncRead + AsyncWrite` and is one itself, so that they stack:
//!
//! ```
//! use conn_conformance::fault::{Chop, Storm};
//!
//! let (a, b) = tokio::io::duplex(1024);
//! let hostile = Storm::new(Chop::new(a, 7, 3), 7);
//! # drop((hostile, b));
//! ```
//!
//! - [`Chop`] reads and writes a few bytes at a time.
//! - [`Storm`] is pending for no reason, again and again.
//! - [`Delay`] lets each byte be read some time after it came.
//! - [`Rate`] writes so many bytes per second.
//! - [`Gate`] stops writing until it is opened.
//! - [`Cut`] dies after so many bytes, or at once.
//! - [`Splice`] slips bytes in between two frames.
//! - [`Tap`] keeps a log of what went by.

mod chop;
mod cut;
mod delay;
mod gate;
mod rate;
mod splice;
mod storm;
mod tap;

pub use chop::Chop;
pub use cut::{Cut, CutHandle, Death};
pub use delay::Delay;
pub use gate::{Gate, GateHandle};
pub use rate::Rate;
pub use splice::{Splice, SpliceHandle};
pub use storm::Storm;
pub use tap::{Direction, Tap, TapLog};
