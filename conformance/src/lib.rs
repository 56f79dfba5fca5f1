//! Says whether a connection keeps its promises.
//!
//! A suite of named cases for anything that is `AsyncRead + AsyncWrite` and for stream multiplexers: Go's nettest,
//! and many times as much. It needs one function that makes a connected pair:
//!
//! ```
//! use conn_conformance::{Cap, Caps, Options, Pair, Target, run_all};
//!
//! async fn duplex() -> std::io::Result<Pair> {
//!     let (a, b) = tokio::io::duplex(4096);
//!     Ok(Pair::new(a, b))
//! }
//!
//! let caps = Caps::of(&[Cap::HalfClose, Cap::InMemory, Cap::PeerGone]).bounded(4096);
//! let mut options = Options::default();
//! options.only = "io.*".to_owned();
//! let report = run_all(&Target::pairs("duplex", duplex, caps), &options);
//! assert_eq!(report.failed(), 0, "{report}");
//! ```
//!
//! In a crate's tests, [`suite!`] makes one test of each case. What a transport does not offer it does not claim
//! ([`Caps`]); the cases that need it are skipped and listed.
//!
//! It does not measure speed, and a pass is no proof: it looks for the defects it knows. The [`mutants`] show which
//! those are.
//!
//! # Map
//!
//! - [`Pair`], [`End`], [`Control`], [`MakePair`]: what a transport's author writes; [`Mux`], [`MakeMux`] for
//!   multiplexers; [`Deadlined`] adds deadlines and close to a stream that has none.
//! - [`cases`]: a page for each group of promises; [`catalogue`] lists them all.
//! - [`run_all`], [`run_case`], [`Report`]: running them. A case runs on one thread in virtual time, where a lost
//!   wake-up shows at once, and on several in real time; the cases about wakers are polled by hand.
//! - [`fault`]: byte pipes that chop, delay, stall, die and listen, for any test.
//! - [`reference`](mod@reference): a pair and a multiplexer that keep every promise; [`mutants`]: those that each break
//!   one.

#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

mod alloc;
mod caps;
mod case;
pub mod cases;
mod context;
mod deadlined;
pub mod fault;
pub mod mutants;
mod mux;
mod pair;
mod panics;
pub mod reference;
mod report;
mod rng;
mod run;
mod step;
mod suite;
#[path = "suite/list.rs"]
mod suite_list;
mod target;

pub use alloc::CountingAllocator;
pub use caps::{Cap, Caps};
pub use case::{Case, Group, catalogue, find};
pub use deadlined::{DeadlineControl, Deadlined};
pub use mux::{Frame, FrameKind, Frames, MakeMux, Mux, MuxPair, Side};
pub use pair::{BoxFuture, Control, End, Io, MakePair, Over, Pair, Stop, Wire, over};
pub use report::{CaseReport, Failure, Outcome, Report};
pub use run::{Clocks, Options, run_all, run_all_with, run_case};
#[doc(hidden)]
pub use suite::check;
pub use target::Target;
