//! The runner of the conformance suite: a command line over [`conn_conformance`].
//!
//! - `app` is the command line: one function per command.
//! - `card` writes the report card: every transport, every group.
//! - `output` writes reports as text, JSON and JUnit.
//! - `targets` makes the transports that are built in.

mod app;
mod card;
mod output;
mod targets;

pub use app::{Args, Command, Format, RunArgs, Verdict, run};
