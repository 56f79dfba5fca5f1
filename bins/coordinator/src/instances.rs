//! Instances: leases joined with the machines behind them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use sshbridge::auth::Tenure;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::lease::Lease;
use crate::machine::Link;
use crate::pool::{CHECK_TIME, Pool, Reservation, Ticket};
use crate::store::{Store, StoreError};

/// What users hold.
pub struct Instances {
    store: Arc<dyn Store>,
    pool: Arc<Pool>,
    ends: Mutex<HashMap<String, End>>,
}

/// The end of a lease, for those who use its machine.
#[derive(Clone, Default)]
struct End {
    /// Cancelled when it has come.
    cut: CancellationToken,
    /// When it comes, and why.
    tenure: Tenure,
}

impl Instances {
    /// Joins a store of leases with a pool of machines, and keeps the machines for those who had them when the store was
    /// used last.
    ///
    /// # Errors
    ///
    /// [`InstanceError`] where the store fails.
    pub async fn load(store: Arc<dyn Store>, pool: Arc<Pool>) -> Result<Self, InstanceError> {
        let instances = Self {
            store,
            pool,
            ends: Mutex::default(),
        };
        instances.sweep().await?;
        for lease in instances.list(None).await? {
            instances.pool.keep(&lease.machine, &lease.name);
            instances.begin(&lease);
            info!(instance = %lease.name, machine = %lease.machine, "still leased");
        }
        Ok(instances)
    }

    /// Waits for a machine, empties its work directory, and leases it to `user`. A machine that cannot be emptied is
    /// cut off, one that is not well even so is set aside, and the next one is taken. One without a buildlet is taken as it
    /// is.
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
            let Some(reservation) = made_ready(ticket.machine().await).await else {
                continue;
            };
            let machine = reservation.machine.clone();
            let lease = match self
                .store
                .create(user, builder_type, &machine, SystemTime::now())
                .await
            {
                Ok(lease) => lease,
                Err(StoreError::Leased) => {
                    reservation.reject();
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            self.begin(&lease);
            reservation.lease(&lease.name);
            info!(instance = %lease.name, %machine, "leased");
            return Ok(lease);
        }
    }

    /// Finds the instance `name` of `user`, and renews its lease.
    ///
    /// # Errors
    ///
    /// [`InstanceError::Unknown`] where there is none, [`InstanceError::NotYours`] where it is somebody else's.
    pub async fn use_by(&self, user: &str, name: &str) -> Result<Lease, InstanceError> {
        let lease = self.store.get(name, SystemTime::now()).await?;
        let lease = lease.ok_or(InstanceError::Unknown)?;
        if lease.user != user {
            return Err(InstanceError::NotYours);
        }
        self.renew(name).await
    }

    /// Renews a lease.
    ///
    /// # Errors
    ///
    /// [`InstanceError::Unknown`] where it has ended.
    pub async fn renew(&self, name: &str) -> Result<Lease, InstanceError> {
        let renewed = self.store.renew(name, SystemTime::now()).await?;
        let lease = renewed.ok_or(InstanceError::Unknown)?;
        self.set_end(&lease);
        Ok(lease)
    }

    /// The link of an instance's machine.
    ///
    /// # Errors
    ///
    /// [`InstanceError::Away`] while the machine is not connected, [`InstanceError::NoBuildlet`] where it never is.
    pub fn link(&self, lease: &Lease) -> Result<Arc<Link>, InstanceError> {
        let machine = &lease.machine;
        self.pool.link(machine).ok_or_else(|| {
            if self.pool.is_standing(machine) {
                return InstanceError::NoBuildlet;
            }
            let since = self.pool.away_since(machine);
            InstanceError::Away { since }
        })
    }

    /// A token that is cancelled when the lease ends: every stream of the user is then cut.
    pub fn end_of(&self, name: &str) -> CancellationToken {
        self.end(name).cut
    }

    /// When the lease ends, as far as is known, and why: SSH sessions are told.
    pub fn tenure_of(&self, name: &str) -> Tenure {
        self.end(name).tenure
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
            self.release(&lease, "destroyed", destroyed(name));
        }
        Ok(())
    }

    /// Ends every lease.
    ///
    /// # Errors
    ///
    /// [`InstanceError`] where the store fails.
    pub async fn destroy_all(&self) -> Result<(), InstanceError> {
        for lease in self.list(None).await? {
            self.destroy(&lease.name).await?;
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
            self.release(&lease, "expired", expired(&lease.name));
        }
        Ok(())
    }

    fn begin(&self, lease: &Lease) {
        self.ends().insert(lease.name.clone(), End::default());
        self.set_end(lease);
    }

    fn set_end(&self, lease: &Lease) {
        if let Some(end) = self.ends().get(&lease.name) {
            let left = lease.expires.duration_since(SystemTime::now());
            end.tenure
                .set_end(Instant::now() + left.unwrap_or_default());
        }
    }

    fn end(&self, name: &str) -> End {
        self.ends().get(name).cloned().unwrap_or_else(|| {
            let end = End::default();
            end.cut.cancel();
            end.tenure.end(expired(name));
            end
        })
    }

    /// Tells everybody who uses the machine, then takes it from them.
    fn release(&self, lease: &Lease, why: &'static str, sentence: String) {
        if let Some(end) = self.ends().remove(&lease.name) {
            end.tenure.end(sentence);
            end.cut.cancel();
        }
        self.pool.release(&lease.machine);
        info!(instance = %lease.name, machine = %lease.machine, why, "lease ended");
    }

    fn ends(&self) -> MutexGuard<'_, HashMap<String, End>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Empties the machine's work directory and asks whether it is well. `None` where it is not for users: then it is given up.
async fn made_ready(reservation: Reservation) -> Option<Reservation> {
    let Some(link) = reservation.link.clone() else {
        return Some(reservation);
    };
    if let Err(error) = link.clean().await {
        warn!(machine = %link.id, %error, "cannot empty the work directory; cutting the machine off");
        reservation.reject();
        return None;
    }
    match link.check(CHECK_TIME).await {
        Ok(None) => Some(reservation),
        Ok(Some(reason)) => {
            warn!(machine = %link.id, %reason, "setting the machine aside");
            reservation.set_aside(reason);
            None
        }
        Err(error) => {
            warn!(machine = %link.id, %error, "cutting the machine off");
            reservation.reject();
            None
        }
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
    /// The machine has a console and no buildlet.
    #[error("the machine runs no buildlet; it is used with ssh")]
    NoBuildlet,
    /// The instance is somebody else's.
    #[error("you don't own that buildlet")]
    NotYours,
    /// The store failed.
    #[error(transparent)]
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

fn destroyed(name: &str) -> String {
    format!("instance {name:?} was destroyed")
}

fn expired(name: &str) -> String {
    format!("the lease of instance {name:?} has ended")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::lease::{LEASE_TIME, MachineId};
    use crate::pool::{PresenceStatus, Usage};
    use crate::store::SqliteStore;

    fn machine(hostname: &str) -> MachineId {
        MachineId {
            host_type: "host".into(),
            hostname: hostname.into(),
        }
    }

    /// What there is after a start with a lease of half its time.
    async fn leased() -> (Instances, Lease) {
        let store = Arc::new(SqliteStore::in_memory().await);
        let begun = SystemTime::now() - LEASE_TIME / 2;
        let lease = store.create("al", "t", &machine("m"), begun).await.unwrap();
        let instances = Instances::load(store, Arc::default()).await.unwrap();
        (instances, lease)
    }

    #[tokio::test]
    async fn a_start_keeps_the_machines_for_those_who_have_them() {
        let store = Arc::new(SqliteStore::in_memory().await);
        let now = SystemTime::now();
        for (hostname, begun) in [("away", now), ("old", now - LEASE_TIME), ("standing", now)] {
            let machine = machine(hostname);
            store.create("al", "t", &machine, begun).await.unwrap();
        }
        let pool = Arc::new(Pool::default());
        pool.set_standing([machine("standing"), machine("free")].into());
        let instances = Instances::load(store, pool.clone()).await.unwrap();
        let names = instances.list(None).await.unwrap();
        let names: Vec<_> = names.into_iter().map(|lease| lease.name).collect();
        assert_eq!(names, ["user-al-t-0", "user-al-t-2"]);
        assert!(!instances.end_of("user-al-t-0").is_cancelled());
        assert!(instances.end_of("user-al-t-1").is_cancelled());
        let leased = |name: &str| Usage::Leased(name.into());
        let seen = pool.snapshot().machines.into_iter().map(|machine| {
            let is_away = matches!(machine.presence, PresenceStatus::Away);
            (machine.id.hostname, is_away, machine.usage)
        });
        assert_eq!(
            seen.collect::<Vec<_>>(),
            [
                ("away".into(), true, leased("user-al-t-0")),
                ("free".into(), false, Usage::Idle),
                ("standing".into(), false, leased("user-al-t-2")),
            ]
        );
    }

    #[tokio::test]
    async fn everybody_who_asks_after_the_end_is_told_so() {
        let store = Arc::new(SqliteStore::in_memory().await);
        let instances = Instances::load(store, Arc::default()).await.unwrap();
        assert!(instances.end_of("user-al-t-0").is_cancelled());
        let tenure = format!("{:?}", instances.tenure_of("user-al-t-0"));
        assert!(tenure.contains("has ended"), "{tenure}");
    }

    #[tokio::test]
    async fn all_can_be_ended() {
        let (instances, lease) = leased().await;
        instances.destroy_all().await.unwrap();
        assert!(instances.end_of(&lease.name).is_cancelled());
        assert!(instances.list(None).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn use_puts_the_end_off() {
        let (instances, lease) = leased().await;
        let tenure = instances.tenure_of(&lease.name);
        let before = format!("{tenure:?}");
        instances.use_by("al", &lease.name).await.unwrap();
        assert_ne!(format!("{tenure:?}"), before);
        assert!(!instances.end_of(&lease.name).is_cancelled());
    }

    #[tokio::test]
    async fn who_uses_a_machine_is_told_why_it_is_taken() {
        let (instances, lease) = leased().await;
        let tenure = instances.tenure_of(&lease.name);
        let cut = instances.end_of(&lease.name);
        instances.destroy(&lease.name).await.unwrap();
        timeout(Duration::from_secs(10), cut.cancelled())
            .await
            .unwrap();
        let told = format!("{tenure:?}");
        assert!(told.contains("was destroyed"), "{told}");
    }
}
