//! The transports that are built in.

mod layered;
mod muxes;
mod plain;

use conn_conformance::Target;

/// Their names, in the order of the report card.
pub(crate) const NAMES: &[&str] = &[
    "duplex",
    "tcp",
    "unix",
    "tls",
    "quinn",
    "yamux",
    "tokio-yamux",
];

/// The transport of this name.
pub(crate) fn find(name: &str) -> Option<Target> {
    match name {
        "duplex" => Some(plain::duplex()),
        "tcp" => Some(plain::tcp()),
        "unix" => Some(plain::unix()),
        "tls" => Some(layered::tls()),
        "quinn" => Some(layered::quinn()),
        "yamux" => Some(muxes::yamux()),
        "tokio-yamux" => Some(muxes::tokio_yamux()),
        _ => None,
    }
}
