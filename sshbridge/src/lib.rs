#![doc = include_str!("../README.md")]
//!
//! ## Modules
//!
//! * [`server`] takes connections and pumps their channels; [`auth`] is what it asks, [`backend`] what it opens.
//! * [`authorize`] decides by keys, which [`keysource`] finds, and by the [`certificate`] of one; [`key`] is one, [`hostkey`] the server's own.
//! * [`backend::ssh`] reaches machines that speak SSH, [`backend::telnet`] those that only speak telnet, [`backend::conterm`] those of
//!   Plan 9.
//! * [`audit`] is told what happens on a server.
//! * `flow`, within, is the layer between the SSH library and everything else; its documentation says why it must be there.

#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

pub mod audit;
pub mod auth;
pub mod authorize;
pub mod backend;
pub mod certificate;
mod flow;
pub mod hostkey;
pub mod key;
pub mod keysource;
#[cfg(feature = "machine")]
pub mod machine;
mod registry;
pub mod server;
pub mod sftp;
mod signal;
