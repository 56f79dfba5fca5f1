//! Waiting times between attempts to connect.

use std::time::Duration;

/// Exponential backoff with full jitter: each wait is a random part of a ceiling that doubles.
///
/// A thousand machines that lose their coordinator at the same moment do not come back at the same moment
/// (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
///
/// ```
/// use revdial::backoff::FullJitter;
///
/// let mut backoff = FullJitter::default();
/// assert!(backoff.next_delay() <= std::time::Duration::from_secs(1));
/// assert!(backoff.next_delay() <= std::time::Duration::from_secs(2));
/// backoff.reset();
/// assert!(backoff.next_delay() <= std::time::Duration::from_secs(1));
/// ```
#[derive(Clone, Debug)]
pub struct FullJitter {
    base: Duration,
    cap: Duration,
    attempts: u32,
}

impl FullJitter {
    /// Waits up to `base` at first and never more than `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            attempts: 0,
        }
    }

    /// The wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        self.next_delay_with(rand::random_range(0.0..=1.0))
    }

    /// The wait before the next attempt, where `part`, from 0 to 1, is the random part of the ceiling.
    pub fn next_delay_with(&mut self, part: f64) -> Duration {
        let ceiling = self.ceiling();
        self.attempts = self.attempts.saturating_add(1);
        ceiling.mul_f64(part.clamp(0.0, 1.0))
    }

    /// Begins anew: an attempt has succeeded.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// What the next wait is at most.
    fn ceiling(&self) -> Duration {
        let factor = 1u32.checked_shl(self.attempts).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

impl Default for FullJitter {
    /// From 1 s to 60 s.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_stays_there() {
        let mut backoff = FullJitter::default();
        let ceilings: Vec<u64> = (0..8)
            .map(|_| backoff.next_delay_with(1.0).as_secs())
            .collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 60, 60]);
        for _ in 0..1000 {
            assert_eq!(backoff.next_delay_with(1.0), Duration::from_secs(60));
        }
    }

    #[test]
    fn any_random_part_is_taken() {
        let mut backoff = FullJitter::default();
        assert_eq!(backoff.next_delay_with(0.0), Duration::ZERO);
        assert_eq!(backoff.next_delay_with(0.5), Duration::from_secs(1));
        assert_eq!(backoff.next_delay_with(-3.0), Duration::ZERO);
    }

    #[test]
    fn a_success_begins_anew() {
        let mut backoff = FullJitter::default();
        for _ in 0..5 {
            backoff.next_delay();
        }
        backoff.reset();
        assert_eq!(backoff.next_delay_with(1.0), Duration::from_secs(1));
    }
}
