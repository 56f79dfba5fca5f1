#![doc = include_str!("../README.md")]
//!
//! # What it refuses to do
//!
//! It does not encrypt or authenticate: the transport does, and whoever made it. It does not reconnect: a link that
//! ended stays ended, with a [`CloseReason`] that is the same for everybody; [`backoff`] says how long to wait before
//! the next. It has no time limits of its own but the keep-alive: give a dial or an upgrade one with
//! `tokio::time::timeout`.
//!
//! # Map
//!
//! - [`frame`]: the bytes.
//! - [`session`]: the machine, without I/O, clock or lock; all that is built with `--no-default-features`.
//! - [`Dialer`], [`Listener`], [`Conn`]: handles on a session and the one task that owns its transport.
//! - [`Config`]: every limit.
//! - [`handshake`]: which dialect a client asks for, and the client's side of the HTTP upgrade.
//! - [`backoff`]: waiting times between attempts.

#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

#[cfg(feature = "tokio")]
mod addr;
#[cfg(feature = "tokio")]
pub mod backoff;
mod config;
#[cfg(feature = "tokio")]
mod conn;
#[cfg(feature = "tokio")]
mod dialer;
#[cfg(feature = "tokio")]
mod driver;
mod error;
pub mod frame;
#[cfg(feature = "tokio")]
pub mod handshake;
#[cfg(feature = "tokio")]
mod link;
#[cfg(feature = "tokio")]
mod listener;
pub mod session;

pub use crate::config::Config;
pub use crate::error::{CloseReason, ConnError, DialError, ProtocolError};
#[cfg(feature = "tokio")]
pub use crate::{
    addr::Addr,
    conn::{Conn, ConnHandle, ReadHalf, WriteHalf},
    dialer::Dialer,
    listener::Listener,
};
