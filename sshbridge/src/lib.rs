//! An SSH gateway: turns `(authenticated user, instance)` into a session on a machine.

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
