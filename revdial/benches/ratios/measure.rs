//! Processor time and the middle of several figures.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// User and system time of this process.
pub(crate) fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap()
}

/// The median.
pub(crate) fn median(figures: &mut [f64]) -> f64 {
    percentile(figures, 50)
}

/// The figure that `percent` of all do not exceed.
pub(crate) fn percentile(figures: &mut [f64], percent: usize) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[(figures.len() - 1) * percent / 100]
}
