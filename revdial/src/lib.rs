#![doc = include_str!("../README.md")]
//!
//! # What it refuses to do
//!
//! It does not encrypt or authenticate: the transport does, and whoever made it. It does not resume: a link that ended
//! stays ended, with a [`CloseReason`] that is the same for everybody, and with it all its connections; what
//! [`Connector`] makes then is a new one. A link has no time limits of its own but the keep-alive: give a dial or an
//! upgrade one with `tokio::time::timeout`.
//!
//! # Map
//!
//! - [`frame`]: the bytes.
//! - [`session`]: the machine, without I/O, clock or lock.
//! - [`v1`]: the same two for Go's frames of 2015. That is all that is built with `--no-default-features`.
//! - [`Dialer`], [`Listener`], [`Conn`]: handles on a session and the one task that owns its transport.
//! - [`v2`]: Go's dialect with a connection of its own for each dial, behind the same three types.
//! - [`Config`]: every limit.
//! - [`Connector`] and [`connector`]: dialling a server, through proxies, registering there, and coming back.
//! - [`handshake`]: which dialect a client asks for, and the client's side of the HTTP upgrade.
//! - [`backoff`]: waiting times between attempts.

#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

#[cfg(feature = "tokio")]
mod addr;
#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "tokio")]
pub mod backoff;
mod config;
#[cfg(feature = "tokio")]
mod conn;
#[cfg(feature = "tokio")]
pub mod connector;
#[cfg(feature = "tokio")]
mod dialer;
#[cfg(feature = "tokio")]
mod direct;
#[cfg(feature = "tokio")]
mod driver;
mod error;
pub mod frame;
#[cfg(feature = "tokio")]
pub mod handshake;
#[cfg(feature = "hyper")]
mod hyper;
mod ids;
#[cfg(feature = "tokio")]
mod link;
#[cfg(feature = "tokio")]
mod listener;
#[cfg(any(feature = "tokio", test))]
mod machine;
pub mod session;
#[cfg(feature = "tokio")]
mod sync;
#[cfg(feature = "tower")]
mod tower;
pub mod v1;
#[cfg(feature = "tokio")]
pub mod v2;

pub use crate::config::Config;
pub use crate::error::{CloseReason, ConnError, DialError, PeerText, PingError, ProtocolError};
#[cfg(feature = "tokio")]
pub use crate::{
    addr::Addr,
    conn::{Conn, ConnHandle, ReadHalf, WriteHalf},
    connector::client::Connector,
    dialer::Dialer,
    listener::Listener,
};
