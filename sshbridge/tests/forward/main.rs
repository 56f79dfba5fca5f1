//! Forwarding, to a machine's own server and through a gateway to it: ports, Unix sockets, agents.

#![cfg(all(feature = "machine", target_os = "linux"))]
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod agent;
mod direct;
mod limits;
mod remote;
mod support;
