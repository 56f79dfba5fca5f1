//! The connector against servers and proxies of a few lines, on loopback.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod attempts;
mod links;
mod proxies;
mod support;
#[cfg(feature = "rustls")]
mod tls;
