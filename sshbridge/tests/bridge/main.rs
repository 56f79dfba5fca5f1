//! The server and the ssh backend, run against each other and against a client of the SSH library, over pipes in memory.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "tests look at what they are about"
)]

mod audit;
mod auth;
mod channels;
mod ends;
mod flow;
mod jump;
mod support;
