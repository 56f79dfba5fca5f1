//! What each source of connections has used up: its rate, and the patience with its failures.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::SourceLimits;

/// Counts by source. A source is an IPv4 address or an IPv6 /64, which is what a user of IPv6 has; the loopback interface
/// is none: what comes from there is a proxy before us, or ourselves.
pub(super) struct Sources {
    limits: SourceLimits,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    sources: HashMap<IpAddr, Source>,
    /// When a full table was last looked through for what is over.
    swept: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Source {
    /// When all connections so far would have come at the rate that is allowed.
    due: Instant,
    /// When its penalties are over.
    penalty: Instant,
    /// Whether it is refused until then.
    refused: bool,
}

/// What a connection did wrong before it logged in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Offence {
    /// It held its place until it was taken from it.
    Idle,
    /// It tried keys that are not granted.
    Rejected,
    /// It left without trying to log in, or could not speak.
    NoLogin,
}

impl Offence {
    /// The penalties of OpenSSH's `PerSourcePenalties`.
    fn penalty(self) -> Duration {
        Duration::from_secs(match self {
            Self::Idle => 10,
            Self::Rejected => 5,
            Self::NoLogin => 1,
        })
    }
}

impl Sources {
    pub(super) fn new(limits: SourceLimits) -> Self {
        Self {
            limits,
            known: Mutex::default(),
        }
    }

    /// How long a connection has to wait for its turn; `None` where it is refused.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Duration> {
        let now = Instant::now();
        let Some(source) = counted(address) else {
            return Some(Duration::ZERO);
        };
        self.with(source, now, |limits, source| {
            if source.refused {
                return None;
            }
            let Some(interval) = Duration::from_secs(1).checked_div(limits.rate) else {
                return Some(Duration::ZERO);
            };
            let due = source.due.max(now);
            let burst = interval.saturating_mul(limits.burst.saturating_sub(1));
            let wait = due.duration_since(now).saturating_sub(burst);
            if wait > WAIT {
                return None;
            }
            source.due = due + interval;
            Some(wait)
        })
        .unwrap_or(Some(Duration::ZERO))
    }

    /// Holds `offence` against a source.
    pub(super) fn blame(&self, address: IpAddr, offence: Offence) {
        let now = Instant::now();
        let Some(source) = counted(address) else {
            return;
        };
        self.with(source, now, |limits, source| {
            let penalty = source.penalty.max(now) + offence.penalty();
            source.penalty = penalty.min(now + limits.max_penalty);
            let left = source.penalty.duration_since(now);
            source.refused |= left > limits.patience;
        });
    }

    /// Runs `work` on what is known of `source`. Where too many are known none is added: who fills the table gets in no
    /// easier than before, and others are not kept out.
    fn with<T>(
        &self,
        source: IpAddr,
        now: Instant,
        work: impl FnOnce(&SourceLimits, &mut Source) -> T,
    ) -> Option<T> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.sources.contains_key(&source) && !known.has_room(now) {
            return None;
        }
        let entry = known.sources.entry(source).or_insert(Source {
            due: now,
            penalty: now,
            refused: false,
        });
        entry.refused &= entry.penalty > now;
        Some(work(&self.limits, entry))
    }
}

impl Known {
    /// Whether one more may be kept. A table that stays full is not looked through for every connection: a network of many
    /// addresses would buy the server's time with it.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.sources.len() < MAX_SOURCES {
            return true;
        }
        if self.swept.is_some_and(|swept| now < swept + SWEEP_INTERVAL) {
            return false;
        }
        self.swept = Some(now);
        self.sources
            .retain(|_, source| source.due > now || source.penalty > now);
        self.sources.len() < MAX_SOURCES
    }
}

/// What `address` counts for, unless it is of the loopback interface.
fn counted(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    (!address.is_loopback()).then(|| source(address))
}

/// An IPv6 user has a /64, so that is what is counted.
pub(super) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

/// The most sources that are kept in mind, as OpenSSH; 5 MiB.
const MAX_SOURCES: usize = 1 << 16;

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long a connection waits for its turn, as for a place.
const WAIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn sources() -> Sources {
        Sources::new(SourceLimits::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_slowed_down_and_a_flood_is_refused() {
        let sources = sources();
        for _ in 0..40 {
            assert_eq!(sources.admit(ONE), Some(Duration::ZERO));
        }
        for tenths in 1..=20 {
            assert_eq!(
                sources.admit(ONE),
                Some(Duration::from_millis(100 * tenths))
            );
        }
        assert_eq!(sources.admit(ONE), None);
        assert_eq!(sources.admit(OTHER), Some(Duration::ZERO));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(sources.admit(ONE), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_again_and_again_is_refused_for_a_while() {
        let sources = sources();
        for _ in 0..3 {
            sources.blame(ONE, Offence::Rejected);
            assert!(sources.admit(ONE).is_some(), "one is patient");
        }
        sources.blame(ONE, Offence::Rejected);
        assert_eq!(sources.admit(ONE), None);
        assert!(sources.admit(OTHER).is_some());
        tokio::time::advance(Duration::from_secs(19)).await;
        assert_eq!(sources.admit(ONE), None, "until all of it is over");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(sources.admit(ONE).is_some());
        sources.blame(ONE, Offence::Rejected);
        assert!(sources.admit(ONE).is_some(), "it began anew");
    }

    #[tokio::test(start_paused = true)]
    async fn penalties_end_at_ten_minutes() {
        let sources = sources();
        for _ in 0..1000 {
            sources.blame(ONE, Offence::Idle);
        }
        assert_eq!(sources.admit(ONE), None);
        tokio::time::advance(Duration::from_secs(601)).await;
        assert!(sources.admit(ONE).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_is_one_source_and_the_loopback_none() {
        let sources = sources();
        for _ in 0..20 {
            sources.blame("2001:db8::1".parse().unwrap(), Offence::Idle);
            sources.blame("127.0.0.1".parse().unwrap(), Offence::Idle);
            sources.blame("::ffff:127.0.0.1".parse().unwrap(), Offence::Idle);
        }
        assert_eq!(sources.admit("2001:db8::2".parse().unwrap()), None);
        assert!(sources.admit("2001:db8:0:1::2".parse().unwrap()).is_some());
        for _ in 0..200 {
            assert!(sources.admit("127.0.0.1".parse().unwrap()).is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_in_mind_is_bounded() {
        let sources = sources();
        let address = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from_bits((10 << 24) + n));
        for n in 0..70_000 {
            sources.blame(address(n), Offence::Idle);
        }
        let known = || sources.known.lock().unwrap().sources.len();
        assert_eq!(known(), MAX_SOURCES);
        assert!(sources.admit(ONE).is_some());
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(sources.admit(ONE).is_some());
        assert_eq!(known(), 1, "what is over is forgotten");
    }
}
