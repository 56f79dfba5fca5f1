//! The SFTP server: what it does with files, beside OpenSSH's, and with clients that mean no good.

#![cfg(all(feature = "machine", target_os = "linux"))]
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod behaviour;
mod client;
mod differential;
mod hostile;
