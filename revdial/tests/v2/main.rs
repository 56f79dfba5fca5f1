//! Dialect v2, whole: both roles, in memory and over TLS, and against peers that are literal bytes.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod conformance;
mod dialing;
mod go;
mod handler;
mod listening;
mod support;
mod tls;
