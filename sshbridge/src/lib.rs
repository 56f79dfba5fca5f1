//! An SSH gateway: turns `(authenticated user, instance)` into a session on a machine.

#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

pub mod auth;
pub mod backend;
#[cfg(feature = "machine")]
pub mod machine;
