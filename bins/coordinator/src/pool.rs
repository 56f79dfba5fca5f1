//! The pool: machines that dialled in or stand by themselves, and users who wait for one.

mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use buildlet_proto::api::Unhealthy;
use tokio::sync::Notify;
use tracing::warn;

pub use self::snapshot::{Counts, LinkStatus, MachineStatus, PresenceStatus, Snapshot};
use crate::lease::MachineId;
use crate::machine::Link;

/// The machines that dialled in and those that have no buildlet, by their host type and name, and the queue of those who
/// wait for one.
#[derive(Debug, Default)]
pub struct Pool {
    state: Mutex<State>,
    changed: Notify,
}

impl Pool {
    /// Takes in a machine that has just registered. `lease` is the name of the instance it belongs to, where it was
    /// leased before it went away.
    ///
    /// # Errors
    ///
    /// [`Occupied`] where a machine of that name is connected: the caller finds out which of the two is real.
    pub fn join(&self, link: Arc<Link>, lease: Option<String>) -> Result<(), Occupied> {
        let mut state = self.state();
        if let Some(present) = state
            .machines
            .get(&link.id)
            .and_then(|entry| entry.presence.link().cloned())
        {
            return Err(Occupied(present));
        }
        let before = state.machines.get(&link.id);
        // Whoever reserved it before it went away will say what becomes of it.
        let usage = if before.is_some_and(|before| before.usage == Usage::Reserved) {
            Usage::Reserved
        } else {
            lease.map_or(Usage::Idle, Usage::Leased)
        };
        let mut entry = Entry::new(Presence::Linked(link.clone()), usage);
        entry.process = link.process;
        entry.restarted = before.and_then(|before| before.restart(&entry));
        if entry.restarted == Some(entry.since) {
            warn!(machine = %link.id, "started anew in the middle of a lease: its user's files are gone");
        }
        state.machines.insert(link.id.clone(), entry);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Forgets the link of a machine, not the machine: a lease waits for it to come back.
    pub fn leave(&self, link: &Arc<Link>) {
        let mut state = self.state();
        let Some(entry) = state.machines.get_mut(&link.id) else {
            return;
        };
        let present = entry.presence.link();
        if !present.is_some_and(|present| Arc::ptr_eq(present, link)) {
            return;
        }
        entry.presence = Presence::Away;
        entry.since = SystemTime::now();
        if matches!(entry.usage, Usage::Idle | Usage::Unfit(_)) {
            state.machines.remove(&link.id);
        }
    }

    /// Says which machines have no buildlet and are there all the same. One that is not named any more leaves as soon as
    /// nobody has it; one that is linked is cut off.
    pub fn set_standing(&self, machines: BTreeSet<MachineId>) {
        let mut state = self.state();
        let mut cut = Vec::new();
        for id in &machines {
            match state.machines.get_mut(id) {
                Some(entry) => cut.extend(entry.presence.stand()),
                None => {
                    let entry = Entry::new(Presence::Standing, Usage::Idle);
                    state.machines.insert(id.clone(), entry);
                }
            }
        }
        state.machines.retain(|id, entry| {
            let is_named = machines.contains(id) || !matches!(entry.presence, Presence::Standing);
            is_named || entry.usage != Usage::Idle
        });
        state.standing = machines;
        drop(state);
        for link in cut {
            link.close();
        }
        self.changed.notify_waiters();
    }

    /// Keeps a machine for the instance `lease`, which it was when the coordinator ended: it is away until it dials in again.
    pub fn keep(&self, machine: &MachineId, lease: &str) {
        let usage = Usage::Leased(lease.to_owned());
        let mut state = self.state();
        match state.machines.get_mut(machine) {
            Some(entry) => entry.usage = usage,
            None => {
                let entry = Entry::new(Presence::Away, usage);
                state.machines.insert(machine.clone(), entry);
            }
        }
    }

    /// Whether a machine is there without a buildlet.
    pub fn is_standing(&self, machine: &MachineId) -> bool {
        let state = self.state();
        let entry = state.machines.get(machine);
        entry.is_some_and(|entry| matches!(entry.presence, Presence::Standing))
    }

    /// The link of a machine, while it is connected.
    pub fn link(&self, machine: &MachineId) -> Option<Arc<Link>> {
        self.state().machines.get(machine)?.presence.link().cloned()
    }

    /// The links of all machines that are connected.
    pub fn links(&self) -> Vec<Arc<Link>> {
        let state = self.state();
        let links = state.machines.values().filter_map(|it| it.presence.link());
        links.cloned().collect()
    }

    /// Since when a machine that is leased has been away.
    pub fn away_since(&self, machine: &MachineId) -> Option<SystemTime> {
        self.state()
            .machines
            .get(machine)
            .filter(|entry| matches!(entry.presence, Presence::Away))
            .map(|entry| entry.since)
    }

    /// When a machine that is leased came back as another process, which has emptied its work directory.
    pub fn restarted(&self, machine: &MachineId) -> Option<SystemTime> {
        self.state().machines.get(machine)?.restarted
    }

    /// Waits until `count` machines are connected.
    pub async fn joined(&self, count: usize) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self
                .state()
                .machines
                .values()
                .filter(|entry| entry.presence.link().is_some())
                .count()
                >= count
            {
                return;
            }
            changed.await;
        }
    }

    /// Joins the queue for a machine of `host_type`.
    pub fn queue(self: &Arc<Self>, host_type: &str) -> Ticket {
        let mut state = self.state();
        state.last_ticket += 1;
        let number = state.last_ticket;
        state
            .queues
            .entry(host_type.to_owned())
            .or_default()
            .insert(number);
        drop(state);
        Ticket {
            pool: self.clone(),
            host_type: host_type.to_owned(),
            number,
        }
    }

    /// Ends the use of a machine and cuts its link, and with it every stream that the last user still had. The machine
    /// dials in again by itself. One without a buildlet is the next user's at once.
    pub fn release(&self, machine: &MachineId) {
        let mut state = self.state();
        let released = state.machines.remove(machine);
        if let Some(Presence::Standing) = released.as_ref().map(|entry| &entry.presence)
            && state.standing.contains(machine)
        {
            let entry = Entry::new(Presence::Standing, Usage::Idle);
            state.machines.insert(machine.clone(), entry);
        }
        drop(state);
        if let Some(link) = released.as_ref().and_then(|entry| entry.presence.link()) {
            link.close();
        }
        self.changed.notify_waiters();
    }

    /// Keeps every machine that nobody has from users while it is being checked, and returns them.
    pub fn start_checks(&self) -> Vec<Arc<Link>> {
        let mut links = Vec::new();
        for entry in self.state().machines.values_mut() {
            let link = entry.presence.link();
            if let (Usage::Idle | Usage::Unfit(_), Some(link)) = (&entry.usage, link) {
                links.push(link.clone());
                entry.checking = true;
            }
        }
        links
    }

    /// Ends the check of a machine: it is for users again, or for none as long as it is unfit, or it is cut off.
    pub fn end_check(&self, link: &Arc<Link>, health: Health) {
        let usage = match health {
            Health::Well => Usage::Idle,
            Health::Unfit(reason) => Usage::Unfit(reason),
            Health::Ill => {
                self.leave(link);
                link.close();
                return;
            }
        };
        if let Some(entry) = self.state().machines.get_mut(&link.id) {
            entry.checking = false;
            if entry.usage != usage && matches!(entry.usage, Usage::Idle | Usage::Unfit(_)) {
                entry.usage = usage;
                entry.since = SystemTime::now();
            }
        }
        self.changed.notify_waiters();
    }

    /// What there is, for the status page.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let machines = state.machines.iter().map(|(id, entry)| MachineStatus {
            id: id.clone(),
            presence: match &entry.presence {
                Presence::Away => PresenceStatus::Away,
                Presence::Linked(link) => PresenceStatus::Linked(LinkStatus {
                    peer: link.peer,
                    version: link.version,
                    connected: link.connected,
                }),
                Presence::Standing => PresenceStatus::Standing,
            },
            usage: entry.usage.clone(),
            since: entry.since,
        });
        let waiting = state
            .queues
            .iter()
            .map(|(host_type, queue)| (host_type.clone(), queue.len()));
        Snapshot {
            machines: machines.collect(),
            waiting: waiting.collect(),
        }
    }

    fn set_usage(&self, machine: &MachineId, usage: Usage) {
        let mut state = self.state();
        if let Some(entry) = state.machines.get_mut(machine) {
            let is_away = matches!(entry.presence, Presence::Away);
            if matches!(usage, Usage::Idle | Usage::Unfit(_)) && is_away {
                state.machines.remove(machine);
            } else {
                entry.usage = usage;
                entry.since = SystemTime::now();
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is complete in itself, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue for a machine. Dropping it leaves the queue.
#[derive(Debug)]
pub struct Ticket {
    pool: Arc<Pool>,
    host_type: String,
    number: u64,
}

impl Ticket {
    /// Waits until this is the first place in the queue and a machine is idle, and takes it.
    ///
    /// # Cancel safety
    ///
    /// The place in the queue is kept until the ticket is dropped; no machine is lost.
    pub async fn machine(&self) -> Reservation {
        loop {
            let changed = self.pool.changed.notified();
            tokio::pin!(changed);
            // Registers before looking, so that a change between the look and the wait is not missed.
            changed.as_mut().enable();
            if let Some(reservation) = self.take() {
                return reservation;
            }
            changed.await;
        }
    }

    /// How many are before this place in the queue.
    pub fn ahead(&self) -> usize {
        let state = self.pool.state();
        state
            .queues
            .get(&self.host_type)
            .map_or(0, |queue| queue.range(..self.number).count())
    }

    /// How busy the machines are that this waits for.
    pub fn counts(&self) -> Counts {
        self.pool.snapshot().counts(&self.host_type)
    }

    fn take(&self) -> Option<Reservation> {
        let mut state = self.pool.state();
        let first = state.queues.get(&self.host_type)?.first()?;
        if *first != self.number {
            return None;
        }
        let of_type = |id: &MachineId| id.host_type == self.host_type;
        let idle = state.machines.iter_mut().find(|(id, entry)| {
            of_type(id)
                && entry.usage == Usage::Idle
                && !entry.checking
                && match &entry.presence {
                    Presence::Away => false,
                    Presence::Linked(link) => !link.is_closed(),
                    Presence::Standing => true,
                }
        });
        let (machine, entry) = idle?;
        entry.usage = Usage::Reserved;
        entry.since = SystemTime::now();
        Some(Reservation {
            pool: self.pool.clone(),
            machine: machine.clone(),
            link: entry.presence.link().cloned(),
            outcome: Outcome::GivenBack,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        if let Some(queue) = state.queues.get_mut(&self.host_type) {
            queue.remove(&self.number);
            if queue.is_empty() {
                state.queues.remove(&self.host_type);
            }
        }
        drop(state);
        self.pool.changed.notify_waiters();
    }
}

/// A machine that is nobody else's while it is made ready. Dropping it gives the machine back.
#[derive(Debug)]
pub struct Reservation {
    pool: Arc<Pool>,
    /// The machine.
    pub machine: MachineId,
    /// Its link, where it has a buildlet.
    pub link: Option<Arc<Link>>,
    outcome: Outcome,
}

impl Reservation {
    /// Makes the machine the instance `lease`.
    pub fn lease(mut self, lease: &str) {
        self.outcome = Outcome::Leased(lease.to_owned());
    }

    /// Keeps the machine from users until a check finds it well.
    pub fn set_aside(mut self, reason: Unhealthy) {
        self.outcome = Outcome::SetAside(reason);
    }

    /// Cuts the machine off, because it could not be made ready.
    pub fn reject(mut self) {
        self.outcome = Outcome::Rejected;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let machine = &self.machine;
        match std::mem::replace(&mut self.outcome, Outcome::GivenBack) {
            Outcome::GivenBack => self.pool.set_usage(machine, Usage::Idle),
            Outcome::Leased(name) => self.pool.set_usage(machine, Usage::Leased(name)),
            Outcome::Rejected => self.pool.release(machine),
            Outcome::SetAside(reason) => self.pool.set_usage(machine, Usage::Unfit(reason)),
        }
    }
}

#[derive(Debug)]
enum Outcome {
    GivenBack,
    Leased(String),
    Rejected,
    SetAside(Unhealthy),
}

/// A machine of that name is connected already.
#[derive(Debug)]
pub struct Occupied(pub Arc<Link>);

/// What a check found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    /// The machine did not answer as it should.
    Ill,
    /// The machine says itself that it should not be used.
    Unfit(Unhealthy),
    /// The machine answered.
    Well,
}

/// What a machine is doing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Usage {
    /// Waiting for a user.
    Idle,
    /// The instance of that name.
    Leased(String),
    /// Being made ready for a user.
    Reserved,
    /// For no user until it is well again.
    Unfit(Unhealthy),
}

#[derive(Debug, Default)]
struct State {
    machines: BTreeMap<MachineId, Entry>,
    queues: BTreeMap<String, BTreeSet<u64>>,
    last_ticket: u64,
    /// The machines that have no buildlet.
    standing: BTreeSet<MachineId>,
}

#[derive(Debug)]
struct Entry {
    presence: Presence,
    usage: Usage,
    since: SystemTime,
    /// Being asked whether it is well, and nobody's until it has answered.
    checking: bool,
    /// The process of its buildlet, where that said which it is.
    process: Option<u64>,
    /// When it came back to its lease as another process.
    restarted: Option<SystemTime>,
}

impl Entry {
    fn new(presence: Presence, usage: Usage) -> Self {
        Self {
            presence,
            usage,
            since: SystemTime::now(),
            checking: false,
            process: None,
            restarted: None,
        }
    }

    /// When the machine was started anew during the lease that it has come back to as `next`. What the buildlet did not say,
    /// and what this coordinator has not seen itself, is no restart.
    fn restart(&self, next: &Self) -> Option<SystemTime> {
        if !matches!(&next.usage, Usage::Leased(_)) || self.usage != next.usage {
            return None;
        }
        match (self.process, next.process) {
            (Some(before), Some(now)) if before != now => Some(next.since),
            _ => self.restarted,
        }
    }
}

/// Where a machine is.
#[derive(Debug)]
enum Presence {
    /// Somebody's, and not connected.
    Away,
    /// Connected.
    Linked(Arc<Link>),
    /// It has no buildlet that could connect.
    Standing,
}

impl Presence {
    fn link(&self) -> Option<&Arc<Link>> {
        match self {
            Self::Linked(link) => Some(link),
            Self::Away | Self::Standing => None,
        }
    }

    /// Makes it stand; the link that it had.
    fn stand(&mut self) -> Option<Arc<Link>> {
        match std::mem::replace(self, Self::Standing) {
            Self::Linked(link) => Some(link),
            Self::Away | Self::Standing => None,
        }
    }
}

/// How long a machine that is idle has to answer a check.
pub const CHECK_TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
