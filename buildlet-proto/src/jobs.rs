//! Jobs: commands with an id, which outlive the connection that started them.
//!
//! A machine keeps a job, its output and its end until the job is deleted, or until newer ones need the room. Standard
//! output and standard error are two streams of bytes, each counted from 0, so that a reader whose connection was cut goes
//! on where it was. [`frame`] is how both travel in one reply.

pub mod frame;
mod id;
mod job;
mod request;
mod signal;

pub use self::id::{InvalidJobId, JobId};
pub use self::job::{Job, JobAbout, JobEnd, JobReason, JobState, Kept};
pub use self::request::{
    JobCommand, JobRequest, JobStdin, OutputRequest, Pty, SignalRequest, SignalTarget,
    StdinRequest, StdinTaken, TerminalSize,
};
pub use self::signal::{Signal, UnknownSignal};
