//! The HTTP/1.1 protocol of buildlets.
//!
//! A *buildlet* runs on a machine and lets the holder of a lease run commands on it, move files, and reach its SSH
//! server. This crate is that protocol and nothing more: it starts no process and opens no file. A machine implements
//! [`Buildlet`], [`server`] puts the trait on a wire, and [`client`] is the same trait again, over any byte stream.
//!
//! | module | what is in it |
//! |---|---|
//! | [`api`] | [`Buildlet`], the route table, with its request and reply types |
//! | [`error`] | [`ApiError`], the one error of every operation, and [`ErrorStatus`] |
//! | [`exec`] | [`ExecRequest`] as a form, [`ProcessState`] as a trailer |
//! | [`jobs`] | [`JobRequest`](jobs::JobRequest) and [`Job`](jobs::Job) as JSON, [output as frames](jobs::frame) |
//! | [`list`] | [`Entry`], one line of a listing |
//! | [`path`] | [`RelPath`], a path that stays below the work directory |
//! | [`server`] | HTTP to [`Buildlet`] |
//! | [`hijack`] | HTTP/1.1 connections that a handler can take over |
//! | [`client`] | [`Buildlet`] to HTTP |
//! | [`coordinator`] | what a user asks a coordinator for: instances, and buildlets behind its proxy |
//! | [`tls`] | TLS connections to a server that is known by a pin |
//!
//! The bytes on the wire are described in `docs/wire.md` of the repository.

#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

pub mod api;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "client")]
pub mod coordinator;
pub mod error;
pub mod exec;
#[cfg(feature = "server")]
pub mod hijack;
pub mod jobs;
pub mod list;
pub mod path;
mod rfc3339;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "tls")]
pub mod tls;

pub use api::Buildlet;
pub use error::{ApiError, ErrorStatus};
pub use exec::{ExecRequest, ProcessState};
pub use list::Entry;
pub use path::RelPath;
