use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::sources::source;

/// Counts the connections that have not logged in, in total and by source.
pub(super) struct Startups {
    counts: Arc<Counts>,
    total: usize,
    per_source: usize,
}

#[derive(Default)]
struct Counts {
    sources: Mutex<Sources>,
    freed: Notify,
}

#[derive(Default)]
struct Sources {
    total: usize,
    waiting: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// A connection that waits for a place.
pub(super) struct Waiting<'a>(&'a Counts);

/// The place of one connection that has not logged in.
pub(super) struct Startup {
    counts: Arc<Counts>,
    source: IpAddr,
}

impl Startups {
    pub(super) fn new(total: usize, per_source: usize) -> Self {
        Self {
            counts: Arc::default(),
            total,
            per_source,
        }
    }

    /// Waits for a place: a tool that opens fifty connections at once is slowed down rather than refused.
    pub(super) async fn admit(&self, address: IpAddr) -> Option<Startup> {
        let source = source(address);
        let _waiting = self.wait()?;
        let admitted = async {
            loop {
                let freed = self.counts.freed.notified();
                tokio::pin!(freed);
                freed.as_mut().enable();
                if let Some(startup) = self.try_admit(source) {
                    return startup;
                }
                freed.await;
            }
        };
        tokio::time::timeout(WAIT, admitted).await.ok()
    }

    /// As many may wait as may be admitted; a flood does not get to hold even that.
    pub(super) fn wait(&self) -> Option<Waiting<'_>> {
        let mut sources = self.counts.sources();
        if sources.waiting >= self.total {
            return None;
        }
        sources.waiting += 1;
        Some(Waiting(&self.counts))
    }

    fn try_admit(&self, source: IpAddr) -> Option<Startup> {
        let mut sources = self.counts.sources();
        let of_source = sources.by_source.get(&source).copied().unwrap_or(0);
        if sources.total >= self.total || of_source >= self.per_source {
            return None;
        }
        sources.total += 1;
        sources.by_source.insert(source, of_source + 1);
        Some(Startup {
            counts: self.counts.clone(),
            source,
        })
    }
}

impl Counts {
    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.sources().waiting -= 1;
    }
}

impl Drop for Startup {
    fn drop(&mut self) {
        let mut sources = self.counts.sources();
        sources.total -= 1;
        if let Some(count) = sources.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.by_source.remove(&self.source);
            }
        }
        drop(sources);
        self.counts.freed.notify_waiters();
    }
}

/// How long a connection waits for a place.
const WAIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_source_does_not_take_the_places_of_others() {
        let startups = Startups::new(3, 2);
        let one = IpAddr::from([192, 0, 2, 1]);
        let _first = startups.admit(one).await.unwrap();
        let second = startups.admit(one).await.unwrap();
        assert!(startups.admit(one).await.is_none());
        let _other = startups.admit(IpAddr::from([192, 0, 2, 2])).await.unwrap();
        assert!(startups.admit(IpAddr::from([192, 0, 2, 3])).await.is_none());
        drop(second);
        assert!(startups.admit(one).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_connection_gets_the_place_that_becomes_free() {
        let startups = Startups::new(1, 1);
        let address = IpAddr::from([192, 0, 2, 1]);
        let first = startups.admit(address).await.unwrap();
        let (second, ()) = tokio::join!(startups.admit(address), async { drop(first) });
        assert!(second.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_limited_too() {
        let startups = Startups::new(1, 1);
        let address = IpAddr::from([192, 0, 2, 1]);
        let _first = startups.admit(address).await.unwrap();
        let begun = tokio::time::Instant::now();
        let (waited, refused) = tokio::join!(startups.admit(address), async {
            let refused = startups.admit(address).await;
            (refused, begun.elapsed())
        });
        assert!(waited.is_none());
        assert!(refused.0.is_none());
        assert!(refused.1 < WAIT);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
