//! Where the keys of users come from.

mod file;
#[cfg(feature = "key-url")]
mod url;

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;

pub use self::file::FileKeys;
#[cfg(feature = "key-url")]
pub use self::url::{UrlKeys, UrlTemplateError};
use crate::key::AuthorizedKey;

/// A place that knows the public keys of accounts.
#[async_trait]
pub trait KeySource: Send + Sync + 'static {
    /// The keys of `account`, which may be none.
    ///
    /// # Errors
    ///
    /// [`KeySourceError`] where the keys cannot be known: nobody is let in then.
    async fn keys(&self, account: &str) -> Result<Vec<AuthorizedKey>, KeySourceError>;

    /// Whether asking leaves the process's own machine.
    fn reach(&self) -> Reach {
        Reach::Local
    }
}

/// How far away a [`KeySource`] is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reach {
    /// On this machine; it may be asked at any time.
    Local,
    /// Elsewhere; it is asked only about a user whom a login names.
    Remote,
}

/// Why the keys of an account are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeySourceError {
    /// The account's name cannot be one.
    #[error("an account name has only letters, digits and hyphens")]
    AccountName,
    /// A file could not be read.
    #[error("{path} cannot be read")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A server could not be reached, or broke off.
    #[error("the key server cannot be reached")]
    Unreachable(#[source] io::Error),
    /// A server answered with something else than keys.
    #[error("the key server answers with status {0}")]
    Status(u16),
    /// The answer or the file is larger than keys ever are.
    #[error("the list of keys is too large")]
    TooLarge,
    /// The server was asked too often; nothing is known yet.
    #[error("the key server is asked too often, try again in a moment")]
    Throttled,
}

/// More keys than this nobody has; the rest is not looked at.
const MAX_KEYS: usize = 100;

/// The largest list of keys: eighty RSA keys of 4096 bits, or six hundred Ed25519 keys.
const MAX_BYTES: u64 = 64 << 10;
