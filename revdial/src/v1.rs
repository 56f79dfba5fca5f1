//! Dialect v1: the frames that Go's revdial spoke from 2015 to 2019.
//!
//! Many connections over one transport, as in v3, in frames of three kinds. What the wire lacks no implementation can
//! add; this is what it means for connections:
//!
//! - **No confirmation.** A dial succeeds at once. Whether anybody listens shows in what is read.
//! - **No reset.** The only end is `C`, which a reader takes for an orderly one. A peer cannot tell an answer that was
//!   given up half-way from a short one: protocols on top must say where their messages end.
//! - **No goodbye.** The end of the transport is one, if it comes between two frames and no connection waits for an
//!   end; anything else is a cut, and every connection fails with it (Go reports an orderly end).
//! - **No flow control.** Nothing stops a peer from sending what nobody reads. Memory is bounded all the same, at the
//!   price that a slow reader holds up the whole link: see [`Config::v1_receive_buffer`](crate::Config::v1_receive_buffer).
//! - **No sign of life.** A dead peer is noticed by the transport or not at all: turn TCP keep-alive on.
//!
//! Half a connection can be closed: a peer of either implementation that got our `C` can go on sending. What is
//! dropped is closed behind what was written, as in Go, since a reset would tell the peer no more.
//!
//! - [`frame`]: the bytes. `docs/wire.md` has the rules.
//! - [`Session`]: the machine.

pub mod frame;
mod session;

pub use self::session::Session;
