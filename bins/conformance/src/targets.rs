//! The transports that are built in.

mod plain;

use conn_conformance::Target;

/// Their names, in the order of the report card.
pub(crate) const NAMES: &[&str] = &["duplex", "tcp", "unix"];

/// The transport of this name.
pub(crate) fn find(name: &str) -> Option<Target> {
    match name {
        "duplex" => Some(plain::duplex()),
        "tcp" => Some(plain::tcp()),
        "unix" => Some(plain::unix()),
        _ => None,
    }
}
