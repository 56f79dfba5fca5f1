//! The coordinator: machines dial in to it, users lease them from it, and everything between the two goes through it.
//!
//! It composes the libraries: machines arrive over `revdial`, are spoken to with `buildlet-proto`, and are reached with
//! SSH through `sshbridge`.
//!
//! | module | what is in it |
//! |---|---|
//! | [`app`] | the command line |
//! | [`config`] | the configuration file |
//! | [`server`], [`reload`] | listeners and shutdown; a configuration that changes in between |
//! | [`coordinator`] | what the two listeners share |
//! | [`identity`] | the certificate and its authority |
//! | [`access`], [`go_keys`], [`secret`] | who may come in |
//! | [`pool`], [`machine`] | machines that dialled in |
//! | [`instances`], [`lease`], [`store`] | who holds which |
//! | [`web`] | HTTPS: registration, gomote's API, the proxy, the status page |
//! | [`ssh`], [`backend`], [`audit`] | SSH, what its sessions run on, and a log of what happens there |
//! | [`demo`] | everything on one machine, to try it |

pub mod access;
pub mod app;
pub mod audit;
pub mod backend;
pub mod config;
pub mod coordinator;
pub mod demo;
pub mod go_keys;
pub mod identity;
pub mod instances;
pub mod lease;
pub mod machine;
pub mod pool;
pub mod reload;
pub mod secret;
pub mod server;
pub mod ssh;
pub mod store;
pub mod web;
