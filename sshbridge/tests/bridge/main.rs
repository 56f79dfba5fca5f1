//! The server and the ssh backend, run against each other and against a client of the SSH library, over pipes in memory.

mod auth;
mod channels;
mod flow;
mod support;
