//! Where leases are kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use crate::config::USER_PREFIX;
use crate::lease::{LEASE_TIME, Lease, MachineId};

/// Keeps leases. Time is an argument, so that a store can be tested without a clock.
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

    /// Lets a lease live for [`LEASE_TIME`] from `now`. Says whether there still was one.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where the store cannot be written.
    async fn renew(&self, name: &str, now: SystemTime) -> Result<bool, StoreError>;

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
    /// The machine is leased already.
    #[error("the machine is leased already")]
    Leased,
}

/// Leases in memory: they end with the process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    leases: Mutex<BTreeMap<String, Lease>>,
}

impl MemoryStore {
    fn leases(&self) -> MutexGuard<'_, BTreeMap<String, Lease>> {
        // Every change is one insert or remove, so a panic elsewhere leaves nothing half done.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(
        &self,
        user: &str,
        builder_type: &str,
        machine: &MachineId,
        now: SystemTime,
    ) -> Result<Lease, StoreError> {
        let mut leases = self.leases();
        if leases.values().any(|lease| lease.machine == *machine) {
            return Err(StoreError::Leased);
        }
        let name = (0_u64..)
            .map(|n| format!("{USER_PREFIX}{user}-{builder_type}-{n}"))
            .find(|name| !leases.contains_key(name))
            .expect("fewer leases than numbers");
        let lease = Lease {
            name: name.clone(),
            user: user.to_owned(),
            builder_type: builder_type.to_owned(),
            machine: machine.clone(),
            created: now,
            expires: now + LEASE_TIME,
        };
        leases.insert(name, lease.clone());
        Ok(lease)
    }

    async fn get(&self, name: &str, now: SystemTime) -> Result<Option<Lease>, StoreError> {
        Ok(self
            .leases()
            .get(name)
            .filter(|lease| !lease.is_expired(now))
            .cloned())
    }

    async fn of_machine(
        &self,
        machine: &MachineId,
        now: SystemTime,
    ) -> Result<Option<Lease>, StoreError> {
        Ok(self
            .leases()
            .values()
            .find(|lease| lease.machine == *machine && !lease.is_expired(now))
            .cloned())
    }

    async fn list(&self, now: SystemTime) -> Result<Vec<Lease>, StoreError> {
        Ok(self
            .leases()
            .values()
            .filter(|lease| !lease.is_expired(now))
            .cloned()
            .collect())
    }

    async fn renew(&self, name: &str, now: SystemTime) -> Result<bool, StoreError> {
        let mut leases = self.leases();
        let Some(lease) = leases.get_mut(name).filter(|lease| !lease.is_expired(now)) else {
            return Ok(false);
        };
        lease.expires = lease.expires.max(now + LEASE_TIME);
        Ok(true)
    }

    async fn remove(&self, name: &str) -> Result<Option<Lease>, StoreError> {
        Ok(self.leases().remove(name))
    }

    async fn sweep(&self, now: SystemTime) -> Result<Vec<Lease>, StoreError> {
        Ok(self
            .leases()
            .extract_if(.., |_, lease| lease.is_expired(now))
            .map(|(_, lease)| lease)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn machine(hostname: &str) -> MachineId {
        MachineId {
            host_type: "host-a".into(),
            hostname: hostname.into(),
        }
    }

    #[tokio::test]
    async fn names_take_the_lowest_free_number() {
        let store = MemoryStore::default();
        let now = SystemTime::UNIX_EPOCH;
        for (host, want) in [
            ("m0", "user-al-t-0"),
            ("m1", "user-al-t-1"),
            ("m2", "user-al-t-2"),
        ] {
            assert_eq!(
                store
                    .create("al", "t", &machine(host), now)
                    .await
                    .unwrap()
                    .name,
                want
            );
        }
        store.remove("user-al-t-1").await.unwrap().unwrap();
        assert_eq!(
            store
                .create("al", "t", &machine("m3"), now)
                .await
                .unwrap()
                .name,
            "user-al-t-1"
        );
        assert_eq!(
            store
                .create("bo", "t", &machine("m4"), now)
                .await
                .unwrap()
                .name,
            "user-bo-t-0"
        );
    }

    #[tokio::test]
    async fn a_machine_has_one_lease() {
        let store = MemoryStore::default();
        let now = SystemTime::UNIX_EPOCH;
        store.create("al", "t", &machine("m"), now).await.unwrap();
        assert!(matches!(
            store.create("bo", "t", &machine("m"), now).await,
            Err(StoreError::Leased)
        ));
        assert_eq!(
            store
                .of_machine(&machine("m"), now)
                .await
                .unwrap()
                .unwrap()
                .user,
            "al"
        );
    }

    #[tokio::test]
    async fn a_lease_ends_after_its_time_unless_it_is_renewed() {
        let store = MemoryStore::default();
        let start = SystemTime::UNIX_EPOCH;
        let name = store
            .create("al", "t", &machine("m"), start)
            .await
            .unwrap()
            .name;

        let last_moment = start + LEASE_TIME - Duration::from_secs(1);
        assert!(store.renew(&name, last_moment).await.unwrap());
        assert!(
            store
                .get(&name, start + LEASE_TIME)
                .await
                .unwrap()
                .is_some()
        );

        let end = last_moment + LEASE_TIME;
        assert!(store.get(&name, end).await.unwrap().is_none());
        assert!(
            !store.renew(&name, end).await.unwrap(),
            "what has ended cannot be renewed"
        );
        assert_eq!(store.sweep(end).await.unwrap().len(), 1);
        assert!(store.list(start).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_clock_that_goes_back_shortens_no_lease() {
        let store = MemoryStore::default();
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(7200);
        let lease = store.create("al", "t", &machine("m"), start).await.unwrap();
        assert!(
            store
                .renew(&lease.name, start - Duration::from_secs(3600))
                .await
                .unwrap()
        );
        assert_eq!(
            store
                .get(&lease.name, start)
                .await
                .unwrap()
                .unwrap()
                .expires,
            lease.expires
        );
    }
}
