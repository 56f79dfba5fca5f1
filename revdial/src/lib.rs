//! A reverse dialer.

#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

#[cfg(feature = "tokio")]
pub mod backoff;
pub mod frame;
#[cfg(feature = "tokio")]
pub mod handshake;
pub mod session;

#[cfg(feature = "tokio")]
mod addr;
mod config;
#[cfg(feature = "tokio")]
mod conn;
#[cfg(feature = "tokio")]
mod dialer;
#[cfg(feature = "tokio")]
mod driver;
mod error;
#[cfg(feature = "tokio")]
mod link;
#[cfg(feature = "tokio")]
mod listener;

pub use crate::config::Config;
pub use crate::error::{CloseReason, ConnError, DialError, ProtocolError};
#[cfg(feature = "tokio")]
pub use crate::{
    addr::Addr,
    conn::{Conn, ConnHandle, ReadHalf, WriteHalf},
    dialer::Dialer,
    listener::Listener,
};
