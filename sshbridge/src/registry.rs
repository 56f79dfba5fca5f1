//! The channels of a connection, as the SSH library's callbacks and the tasks that opened them both find them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is kept per channel, by its number.
///
/// For a channel that we open, the library's first callback and the task that opened it come in either order. Whoever is
/// first makes the entry, and the opener always finds it, even where the channel is closed again by then.
pub(crate) struct Registry<Id, T> {
    entries: Mutex<HashMap<Id, Entry<T>>>,
}

struct Entry<T> {
    value: T,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Its opener has not come yet.
    Arrived,
    /// It has an owner.
    Claimed,
    /// It was closed before its opener came.
    Closed,
}

impl<Id: Copy + Eq + Hash, T: Clone> Registry<Id, T> {
    pub(crate) fn new() -> Self {
        Self {
            entries: Mutex::new(HashMap::new()),
        }
    }

    /// The entry of a channel that a callback is about; `new` makes it where the opener has not come yet.
    pub(crate) fn arrive(&self, id: Id, new: impl FnOnce() -> T) -> T {
        let mut entries = self.entries();
        let entry = entries.entry(id).or_insert_with(|| Entry {
            value: new(),
            state: State::Arrived,
        });
        entry.value.clone()
    }

    /// The entry of a channel for whoever opened it, once per channel.
    pub(crate) fn claim(&self, id: Id, new: impl FnOnce() -> T) -> T {
        let mut entries = self.entries();
        let entry = entries.entry(id).or_insert_with(|| Entry {
            value: new(),
            state: State::Arrived,
        });
        let value = entry.value.clone();
        if entry.state == State::Closed {
            entries.remove(&id);
        } else {
            entry.state = State::Claimed;
        }
        value
    }

    /// The entry of a channel that is open.
    pub(crate) fn get(&self, id: Id) -> Option<T> {
        self.entries().get(&id).map(|entry| entry.value.clone())
    }

    /// Lets go of a channel that the peer has closed.
    pub(crate) fn close(&self, id: Id) -> Option<T> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&id)?;
        if entry.state == State::Arrived {
            entry.state = State::Closed;
            return Some(entry.value.clone());
        }
        entries.remove(&id).map(|entry| entry.value)
    }

    /// Lets go of a channel when its owner is done with it, and drops the result.
    pub(crate) fn registration(self: &Arc<Self>, id: Id) -> Registration<Id, T> {
        Registration {
            registry: Arc::clone(self),
            id,
        }
    }

    /// Lets go of all channels.
    pub(crate) fn drain(&self) -> Vec<T> {
        let entries = std::mem::take(&mut *self.entries());
        entries.into_values().map(|entry| entry.value).collect()
    }

    /// What is kept of every channel.
    pub(crate) fn all(&self) -> Vec<(Id, T)> {
        let entries = self.entries();
        let all = entries.iter().map(|(id, entry)| (*id, entry.value.clone()));
        all.collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries().len()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Id, Entry<T>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a channel in its registry.
pub(crate) struct Registration<Id: Copy + Eq + Hash, T: Clone> {
    registry: Arc<Registry<Id, T>>,
    id: Id,
}

impl<Id: Copy + Eq + Hash, T: Clone> Drop for Registration<Id, T> {
    fn drop(&mut self) {
        self.registry.entries().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_opener_and_the_callbacks_meet_in_either_order() {
        let registry = Registry::new();
        let arrived = registry.arrive(1, || Arc::new("callback"));
        assert_eq!(*registry.claim(1, || Arc::new("opener")), *arrived);
        let claimed = registry.claim(2, || Arc::new("opener"));
        assert_eq!(*registry.arrive(2, || Arc::new("callback")), *claimed);
        assert_eq!(registry.len(), 2);
    }

    #[test]
    fn a_channel_that_is_closed_at_once_is_still_found_by_its_opener_and_then_gone() {
        let registry = Registry::new();
        registry.arrive(1, || Arc::new("callback"));
        assert!(registry.close(1).is_some());
        assert_eq!(*registry.claim(1, || Arc::new("opener")), "callback");
        assert_eq!(registry.len(), 0);
    }

    #[test]
    fn a_channel_that_is_closed_later_is_gone() {
        let registry = Registry::new();
        registry.claim(1, || Arc::new("opener"));
        assert!(registry.close(1).is_some());
        assert!(registry.close(1).is_none());
        assert!(registry.get(1).is_none());
    }

    #[test]
    fn a_channel_is_kept_as_long_as_its_owner_wants() {
        let registry = Arc::new(Registry::new());
        registry.claim(1, || Arc::new("opener"));
        let registration = registry.registration(1);
        assert!(registry.get(1).is_some());
        drop(registration);
        assert_eq!(registry.len(), 0);
    }
}
