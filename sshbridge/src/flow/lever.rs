use std::collections::HashSet;
use std::hash::Hash;

use super::{HIGH_WATER, LOW_WATER, WINDOW};

/// Decides, at each grant of a window, how large the next grant of the connection is.
///
/// russh grants `target - window` as soon as a channel's window is below `target / 2`, for one `target` per connection,
/// and asks after each grant what the target shall be. With a target of two bytes nothing is granted until a window is
/// used up, and then two bytes: the peer sends two bytes per round trip, and each time there is a new decision.
#[derive(Debug)]
pub(crate) struct Lever<Id> {
    /// Channels whose inbox went over the high-water mark and did not come below the low one since.
    full: HashSet<Id>,
    /// Channels that are read, and whose window is used up: the next grant is meant for them.
    wanting: HashSet<Id>,
}

/// What follows from a grant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Decision {
    /// The size of the next grant.
    pub(crate) target: u32,
    /// Whether to wait a little before reading on: a full channel has just been granted its two bytes.
    pub(crate) throttle: bool,
}

impl<Id: Copy + Eq + Hash> Lever<Id> {
    pub(crate) fn new() -> Self {
        Self {
            full: HashSet::new(),
            wanting: HashSet::new(),
        }
    }

    /// Answers to a grant of `granted` bytes to `channel`, given the bytes in the inbox of every open channel.
    pub(crate) fn decide(
        &mut self,
        channel: Id,
        granted: u32,
        inboxes: impl Iterator<Item = (Id, usize)>,
    ) -> Decision {
        self.observe(inboxes);
        let is_full = self.full.contains(&channel);
        if granted > TRICKLE {
            self.wanting.remove(&channel);
            if is_full {
                // The grant was meant for another channel and missed it; that one will ask again.
                self.wanting.clear();
            }
        } else if is_full {
            self.wanting.remove(&channel);
        } else {
            self.wanting.insert(channel);
        }
        let open = !self.wanting.is_empty() || self.full.is_empty();
        Decision {
            target: if open { WINDOW } else { TRICKLE },
            throttle: is_full && granted <= TRICKLE,
        }
    }

    fn observe(&mut self, inboxes: impl Iterator<Item = (Id, usize)>) {
        let before = std::mem::take(&mut self.full);
        let mut open = HashSet::new();
        for (id, bytes) in inboxes {
            open.insert(id);
            if bytes > HIGH_WATER || (bytes > LOW_WATER && before.contains(&id)) {
                self.full.insert(id);
            }
        }
        self.wanting.retain(|id| open.contains(id));
    }
}

/// The closed lever. With a target of one nothing would ever be granted again: half of it is no byte.
const TRICKLE: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: usize = HIGH_WATER + 1;

    #[test]
    fn channels_that_are_read_get_whole_windows() {
        let mut lever = Lever::new();
        let decision = lever.decide(1, WINDOW, [(1, 10), (2, 0)].into_iter());
        assert_eq!(decision, open());
    }

    #[test]
    fn a_full_channel_closes_the_lever() {
        let mut lever = Lever::new();
        let decision = lever.decide(1, WINDOW, [(1, FULL)].into_iter());
        assert_eq!(
            decision,
            Decision {
                target: TRICKLE,
                throttle: false
            }
        );
    }

    #[test]
    fn a_trickle_to_a_full_channel_is_slowed_down() {
        let mut lever = Lever::new();
        lever.decide(1, WINDOW, [(1, FULL)].into_iter());
        let decision = lever.decide(1, TRICKLE, [(1, FULL + 2)].into_iter());
        assert_eq!(
            decision,
            Decision {
                target: TRICKLE,
                throttle: true
            }
        );
    }

    #[test]
    fn a_full_channel_opens_again_only_at_the_low_mark() {
        let mut lever = Lever::new();
        lever.decide(1, WINDOW, [(1, FULL)].into_iter());
        let between = lever.decide(1, TRICKLE, [(1, LOW_WATER + 1)].into_iter());
        assert_eq!(between.target, TRICKLE);
        let below = lever.decide(1, TRICKLE, [(1, LOW_WATER)].into_iter());
        assert_eq!(below, open());
    }

    #[test]
    fn a_channel_that_is_read_is_served_beside_a_full_one() {
        let mut lever = Lever::new();
        lever.decide(1, WINDOW, [(1, FULL), (2, 0)].into_iter());
        let asks = lever.decide(2, TRICKLE, [(1, FULL), (2, 2)].into_iter());
        assert_eq!(asks.target, WINDOW);
        let served = lever.decide(2, WINDOW, [(1, FULL), (2, 4)].into_iter());
        assert_eq!(served.target, TRICKLE);
    }

    #[test]
    fn a_grant_that_a_full_channel_catches_closes_the_lever_again() {
        let mut lever = Lever::new();
        lever.decide(1, WINDOW, [(1, FULL), (2, 0)].into_iter());
        lever.decide(2, TRICKLE, [(1, FULL), (2, 2)].into_iter());
        let caught = lever.decide(1, WINDOW, [(1, FULL), (2, 2)].into_iter());
        assert_eq!(caught.target, TRICKLE);
    }

    #[test]
    fn a_closed_channel_keeps_nothing_open_or_shut() {
        let mut lever = Lever::new();
        lever.decide(1, WINDOW, [(1, FULL), (2, 0)].into_iter());
        let decision = lever.decide(2, TRICKLE, [(2, 0)].into_iter());
        assert_eq!(decision, open());
        let decision = lever.decide(3, WINDOW, [(3, FULL)].into_iter());
        assert_eq!(decision.target, TRICKLE);
    }

    fn open() -> Decision {
        Decision {
            target: WINDOW,
            throttle: false,
        }
    }
}
