//! Where leases are kept.

mod sqlite;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::time::SystemTime;

use async_trait::async_trait;

pub use self::sqlite::{OpenError, SqliteStore};
use crate::lease::{Lease, MachineId};

/// Keeps leases. Time is an argument, so that a store can be tested without a clock; it is kept in milliseconds.
///
/// # Cancel safety
///
/// Each call is done as a whole or not at all; one that is dropped may be either.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Leases `machine` to `user`, under the lowest number that is free for the user and the builder type.
    ///
    /// # Errors
    ///
    /// [`StoreError::Leased`] where the machine is leased already; it is then still with whom it was.
    async fn create(
        &self,
        user: &str,
        builder_type: &str,
        machine: &MachineId,
        now: SystemTime,
    ) -> Result<Lease, StoreError>;

    /// Looks a lease up by its name; one that has expired is not found.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where the store cannot be read.
    async fn get(&self, name: &str, now: SystemTime) -> Result<Option<Lease>, StoreError>;

    /// Looks up who holds a machine.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where the store cannot be read.
    async fn of_machine(
        &self,
        machine: &MachineId,
        now: SystemTime,
    ) -> Result<Option<Lease>, StoreError>;

    /// Lists the leases that have not expired, by name.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where the store cannot be read.
    async fn list(&self, now: SystemTime) -> Result<Vec<Lease>, StoreError>;

    /// Lets a lease live for [`LEASE_TIME`](crate::lease::LEASE_TIME) from `now`, and returns it; one that has expired is not
    /// found.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where the store cannot be written.
    async fn renew(&self, name: &str, now: SystemTime) -> Result<Option<Lease>, StoreError>;

    /// Ends a lease, and returns what it was.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where the store cannot be written.
    async fn remove(&self, name: &str) -> Result<Option<Lease>, StoreError>;

    /// Removes and returns every lease that has expired.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where the store cannot be written.
    async fn sweep(&self, now: SystemTime) -> Result<Vec<Lease>, StoreError>;
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be read or written.
    #[error("leases cannot be read or written")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// The machine is leased already.
    #[error("the machine is leased already")]
    Leased,
}
