//! Leases: a machine that belongs to a user for a while.

use std::time::{Duration, SystemTime};

use buildlet_proto::coordinator::Instance;

use crate::config::USER_PREFIX;

/// A machine leased to a user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// The instance's name: `user-`, the user, the builder type and the lowest free number.
    pub name: String,
    /// The user, without `user-`.
    pub user: String,
    /// What the user asked for.
    pub builder_type: String,
    /// The machine.
    pub machine: MachineId,
    /// When the lease began.
    pub created: SystemTime,
    /// When it ends unless it is renewed.
    pub expires: SystemTime,
}

impl Lease {
    /// How the protocol shows the lease.
    pub fn to_instance(&self) -> Instance {
        Instance::new(
            format!("{USER_PREFIX}{}", self.user),
            self.name.clone(),
            self.machine.host_type.clone(),
            self.builder_type.clone(),
            self.created,
            self.expires,
        )
    }

    /// Whether the lease has ended at `now`.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires <= now
    }
}

/// A machine's name within its host type. Two machines of one type cannot share a name; of different types they can.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MachineId {
    /// The kind of machine.
    pub host_type: String,
    /// The name that it registers with.
    pub hostname: String,
}

impl std::fmt::Display for MachineId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.host_type, self.hostname)
    }
}

/// How long a lease lives without use. Go's coordinator has had 30 minutes since 2015; anything the user does renews it.
pub const LEASE_TIME: Duration = Duration::from_secs(30 * 60);
