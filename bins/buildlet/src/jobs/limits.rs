//! How many jobs, and how much of their output.

use clap::Args;

/// How many jobs a machine runs and keeps, and how much of their output.
#[derive(Args, Clone, Debug)]
#[group(skip)]
#[non_exhaustive]
pub struct JobLimits {
    /// How many commands may run at a time; each costs a few file descriptors and a process beside its own.
    #[arg(long, value_name = "N", default_value_t = MAX_RUNNING)]
    pub max_jobs: usize,
    /// How many ended jobs are kept; the oldest go first.
    #[arg(long, value_name = "N", default_value_t = MAX_KEPT)]
    pub keep_jobs: usize,
    /// How many bytes of output of ended jobs are kept, over all of them; the oldest go first.
    #[arg(long, value_name = "BYTES", default_value_t = MAX_KEPT_BYTES)]
    pub keep_output: u64,
    /// How many bytes of each output stream of a job are kept where its request does not say: the first half and the
    /// last half of as many.
    #[arg(long, value_name = "BYTES", default_value_t = OUTPUT_LIMIT)]
    pub job_output: u64,
}

impl JobLimits {
    /// What a request may ask for in the place of `job_output`: at most all that is kept of ended jobs, so that one job
    /// cannot have the disk.
    pub(super) fn max_output(&self) -> u64 {
        self.keep_output.max(self.job_output)
    }
}

impl Default for JobLimits {
    /// 100 running and 1000 ended jobs, 1 GiB of output, 64 MiB of a stream.
    fn default() -> Self {
        Self {
            max_jobs: MAX_RUNNING,
            keep_jobs: MAX_KEPT,
            keep_output: MAX_KEPT_BYTES,
            job_output: OUTPUT_LIMIT,
        }
    }
}

/// Seven descriptors each stay below the 1024 that most systems allow.
const MAX_RUNNING: usize = 100;
/// A day of a build each minute and a half; the list of them is half a megabyte.
const MAX_KEPT: usize = 1000;
const MAX_KEPT_BYTES: u64 = 1 << 30;
/// More than a verbose build writes, and little enough that a thousand jobs that write it all do not fit, by purpose.
const OUTPUT_LIMIT: u64 = 64 << 20;
/// Less than this is no use, and many small segments cost more than they hold.
pub(super) const MIN_OUTPUT: u64 = 4096;
