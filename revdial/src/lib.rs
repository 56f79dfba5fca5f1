//! A reverse dialer.

#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

pub mod frame;
pub mod session;

mod config;
mod error;

pub use crate::config::Config;
pub use crate::error::{CloseReason, ConnError, DialError, ProtocolError};
