#![doc = include_str!("../README.md")]
//!
//! ## Modules
//!
//! * [`server`] takes connections and pumps their channels; [`auth`] is what it asks, [`backend`] what it opens.
//! * [`authorize`] decides by keys, which [`keysource`] finds; [`key`] is one, [`hostkey`] the server's own.
//! * [`backend::ssh`] reaches machines that speak SSH.
//! * `flow`, within, is the layer between the SSH library and everything else; its documentation says why it must be there.

#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

pub mod auth;
pub mod authorize;
pub mod backend;
mod flow;
pub mod hostkey;
pub mod key;
pub mod keysource;
#[cfg(feature = "machine")]
pub mod machine;
pub mod server;
mod signal;
