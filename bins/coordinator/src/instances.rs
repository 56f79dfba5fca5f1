//! Instances: leases joined with the machines behind them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::lease::Lease;
use crate::machine::Link;
use crate::pool::{Pool, Ticket};
use crate::store::{Store, StoreError};

/// What users hold.
pub struct Instances {
    store: Arc<dyn Store>,
    pool: Arc<Pool>,
    ends: Mutex<HashMap<String, CancellationToken>>,
}

impl Instances {
    /// Joins a store of leases with a pool of machines.
    pub fn new(store: Arc<dyn Store>, pool: Arc<Pool>) -> Self {
        Self {
            store,
            pool,
            ends: Mutex::default(),
        }
    }

    /// Waits for a machine, empties its work directory, and leases it to `user`. A machine that cannot be emptied is
    /// cut off, and the next one is taken.
    ///
    /// # Errors
    ///
    /// [`InstanceError`] where the store fails.
    ///
    /// # Cancel safety
    ///
    /// A machine that was taken already is given back.
    pub async fn create(
        &self,
        user: &str,
        builder_type: &str,
        ticket: &Ticket,
    ) -> Result<Lease, InstanceError> {
        loop {
            let reservation = ticket.machine().await;
            let link = reservation.link.clone();
            if let Err(error) = link.clean().await {
                warn!(machine = %link.id, %error, "cannot empty the work directory; cutting the machine off");
                reservation.reject();
                continue;
            }
            let lease = match self
                .store
                .create(user, builder_type, &link.id, SystemTime::now())
                .await
            {
                Ok(lease) => lease,
                Err(StoreError::Leased) => {
                    reservation.reject();
                    continue;
                }
            };
            self.ends()
                .insert(lease.name.clone(), CancellationToken::new());
            reservation.lease(&lease.name);
            info!(instance = %lease.name, machine = %link.id, "leased");
            return Ok(lease);
        }
    }

    /// Finds the instance `name` of `user`, and renews its lease.
    ///
    /// # Errors
    ///
    /// [`InstanceError::Unknown`] where there is none, [`InstanceError::NotYours`] where it is somebody else's.
    pub async fn use_by(&self, user: &str, name: &str) -> Result<Lease, InstanceError> {
        let now = SystemTime::now();
        let lease = self
            .store
            .get(name, now)
            .await?
            .ok_or(InstanceError::Unknown)?;
        if lease.user != user {
            return Err(InstanceError::NotYours);
        }
        self.store.renew(name, now).await?;
        Ok(lease)
    }

    /// Renews a lease; says whether there still is one.
    ///
    /// # Errors
    ///
    /// [`InstanceError`] where the store fails.
    pub async fn renew(&self, name: &str) -> Result<bool, InstanceError> {
        Ok(self.store.renew(name, SystemTime::now()).await?)
    }

    /// The link of an instance's machine.
    ///
    /// # Errors
    ///
    /// [`InstanceError::Away`] while the machine is not connected.
    pub fn link(&self, lease: &Lease) -> Result<Arc<Link>, InstanceError> {
        let away = || InstanceError::Away {
            since: self.pool.away_since(&lease.machine),
        };
        self.pool.link(&lease.machine).ok_or_else(away)
    }

    /// A token that is cancelled when the lease ends: every stream of the user is then cut.
    pub fn end_of(&self, name: &str) -> CancellationToken {
        self.ends().get(name).cloned().unwrap_or_else(|| {
            let ended = CancellationToken::new();
            ended.cancel();
            ended
        })
    }

    /// The instances of `user`, or of everybody.
    ///
    /// # Errors
    ///
    /// [`InstanceError`] where the store fails.
    pub async fn list(&self, user: Option<&str>) -> Result<Vec<Lease>, InstanceError> {
        let mut leases = self.store.list(SystemTime::now()).await?;
        leases.retain(|lease| user.is_none_or(|user| user == lease.user));
        Ok(leases)
    }

    /// The lease that a machine belongs to, for one that registers again.
    ///
    /// # Errors
    ///
    /// [`InstanceError`] where the store fails.
    pub async fn of_machine(
        &self,
        machine: &crate::lease::MachineId,
    ) -> Result<Option<Lease>, InstanceError> {
        Ok(self.store.of_machine(machine, SystemTime::now()).await?)
    }

    /// Ends a lease: the streams are cut, and the machine dials in anew.
    ///
    /// # Errors
    ///
    /// [`InstanceError`] where the store fails.
    pub async fn destroy(&self, name: &str) -> Result<(), InstanceError> {
        if let Some(lease) = self.store.remove(name).await? {
            self.end(&lease, "destroyed");
        }
        Ok(())
    }

    /// Ends every lease that has expired.
    ///
    /// # Errors
    ///
    /// [`InstanceError`] where the store fails.
    pub async fn sweep(&self) -> Result<(), InstanceError> {
        for lease in self.store.sweep(SystemTime::now()).await? {
            self.end(&lease, "expired");
        }
        Ok(())
    }

    fn end(&self, lease: &Lease, why: &'static str) {
        if let Some(end) = self.ends().remove(&lease.name) {
            end.cancel();
        }
        self.pool.release(&lease.machine);
        info!(instance = %lease.name, machine = %lease.machine, why, "lease ended");
    }

    fn ends(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Instances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instances").finish_non_exhaustive()
    }
}

/// Why an instance cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// The machine is not connected.
    #[error("the machine is not connected at the moment{}; it dials in again by itself", away(*since))]
    Away {
        /// Since when.
        since: Option<SystemTime>,
    },
    /// The instance is somebody else's.
    #[error("you don't own that buildlet")]
    NotYours,
    /// The store failed.
    #[error("leases cannot be read or written")]
    Store(#[from] StoreError),
    /// There is no such instance, or its lease has ended.
    #[error("unknown or expired buildlet")]
    Unknown,
}

fn away(since: Option<SystemTime>) -> String {
    let seconds = since
        .and_then(|since| since.elapsed().ok())
        .map(|time| time.as_secs());
    seconds
        .map(|seconds| format!(" (away for {seconds} s)"))
        .unwrap_or_default()
}
