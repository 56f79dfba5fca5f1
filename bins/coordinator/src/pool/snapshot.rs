//! What the pool looks like from outside.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use super::Usage;
use crate::lease::MachineId;

/// The pool at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Every machine that is connected or has no buildlet, or that is leased and away.
    pub machines: Vec<MachineStatus>,
    /// How many wait, by host type.
    pub waiting: BTreeMap<String, usize>,
}

impl Snapshot {
    /// How busy the machines of a host type are.
    pub fn counts(&self, host_type: &str) -> Counts {
        let waiting = self.waiting.get(host_type).copied().unwrap_or_default();
        let mut counts = Counts {
            waiting,
            ..Counts::default()
        };
        for machine in &self.machines {
            if machine.id.host_type != host_type {
                continue;
            }
            let is_there = !matches!(machine.presence, PresenceStatus::Away);
            counts.there += usize::from(is_there);
            match machine.usage {
                Usage::Idle => counts.idle += usize::from(is_there),
                Usage::Leased(_) | Usage::Reserved => counts.in_use += 1,
                Usage::Unfit(_) => {}
            }
        }
        counts
    }
}

/// How busy the machines of a host type are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Machines that are connected or have no buildlet.
    pub there: usize,
    /// Of these, machines that can be leased.
    pub idle: usize,
    /// Machines that are leased, or made ready for it; they may be away.
    pub in_use: usize,
    /// Requests in the queue.
    pub waiting: usize,
}

/// A machine at one moment.
#[derive(Clone, Debug)]
pub struct MachineStatus {
    /// Which machine.
    pub id: MachineId,
    /// Where it is.
    pub presence: PresenceStatus,
    /// What it is doing.
    pub usage: Usage,
    /// Since when.
    pub since: SystemTime,
}

/// Where a machine is at one moment.
#[derive(Clone, Copy, Debug)]
pub enum PresenceStatus {
    /// Leased, and not connected.
    Away,
    /// Connected.
    Linked(LinkStatus),
    /// It has no buildlet that could connect.
    Standing,
}

/// A link at one moment.
#[derive(Clone, Copy, Debug)]
pub struct LinkStatus {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// The protocol level of the buildlet.
    pub version: u32,
    /// Since when it is there.
    pub connected: SystemTime,
}
