//! Which jobs there are.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use buildlet_proto::jobs::JobId;
use buildlet_proto::{ApiError, ErrorStatus};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::conflict;
use super::job::Job;
use super::limits::JobLimits;

/// All jobs, by id and in the order of their start.
#[derive(Debug)]
pub(super) struct Table {
    limits: JobLimits,
    slots: Arc<Semaphore>,
    /// By the number of their start.
    jobs: BTreeMap<u64, Arc<Job>>,
    numbers: HashMap<JobId, u64>,
    /// Those that are kept by a client's own key.
    keys: HashMap<String, u64>,
    started: u64,
    /// The numbers of those of which nothing lives, in the order of their end, with the bytes that they keep.
    ended: VecDeque<(u64, u64)>,
    kept: u64,
    /// How many want no new jobs for the moment.
    pub(super) closed: usize,
}

/// A client's own name for a request, and what tells two requests apart.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) request: u64,
}

impl Table {
    pub(super) fn new(limits: JobLimits) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(limits.max_jobs.min(Semaphore::MAX_PERMITS))),
            limits,
            jobs: BTreeMap::new(),
            numbers: HashMap::new(),
            keys: HashMap::new(),
            started: 0,
            ended: VecDeque::new(),
            kept: 0,
            closed: 0,
        }
    }

    /// Adds a job, which `make` makes out of a number that no other has.
    pub(super) fn add(&mut self, make: impl FnOnce(u64) -> Arc<Job>) -> Arc<Job> {
        self.started += 1;
        let job = make(self.started);
        self.numbers.insert(job.id, self.started);
        if let Some(key) = &job.key {
            self.keys.insert(key.name.clone(), self.started);
        }
        self.jobs.insert(self.started, job.clone());
        job
    }

    /// A place among those that may run at a time.
    pub(super) fn slot(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if self.closed > 0 {
            return Err(ApiError::new(
                ErrorStatus::UNAVAILABLE,
                "all jobs of this machine are being deleted; start this one afterwards",
            ));
        }
        self.slots.clone().try_acquire_owned().map_err(|_| {
            let message = format!(
                "{} commands run, and this machine takes no more at a time; wait for one, or kill it",
                self.limits.max_jobs
            );
            ApiError::new(ErrorStatus::UNAVAILABLE, message)
        })
    }

    /// The job that a request with the same key has started.
    pub(super) fn with_key(&self, key: &Key) -> Result<Option<Arc<Job>>, ApiError> {
        let job = self
            .keys
            .get(&key.name)
            .and_then(|number| self.jobs.get(number));
        match job {
            Some(job) if job.key.as_ref().map(|other| other.request) != Some(key.request) => {
                Err(conflict("this Idempotency-Key belongs to another request"))
            }
            found => Ok(found.cloned()),
        }
    }

    pub(super) fn has(&self, id: JobId) -> bool {
        self.numbers.contains_key(&id)
    }

    pub(super) fn find(&self, id: JobId) -> Option<Arc<Job>> {
        self.jobs.get(self.numbers.get(&id)?).cloned()
    }

    /// Some of the jobs that were started after the one with the number `after`, in order.
    pub(super) fn some_after(&self, after: u64) -> Vec<Arc<Job>> {
        let later = self.jobs.range(after.saturating_add(1)..);
        later.take(PAGE).map(|(_, job)| job.clone()).collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Job>> {
        self.jobs.values().cloned().collect()
    }

    pub(super) fn remove(&mut self, job: &Arc<Job>) {
        if self.jobs.remove(&job.number).is_none() {
            return;
        }
        self.numbers.remove(&job.id);
        if let Some(key) = &job.key {
            self.keys.remove(&key.name);
        }
        if let Some(place) = self
            .ended
            .iter()
            .position(|(number, _)| *number == job.number)
        {
            let (_, bytes) = self.ended.remove(place).unwrap_or_default();
            self.kept = self.kept.saturating_sub(bytes);
        }
    }

    /// Keeps a job of which nothing lives any more, or forgets it; gives those that are forgotten for it.
    pub(super) fn finished(&mut self, job: &Arc<Job>) -> Vec<Arc<Job>> {
        if !self.jobs.contains_key(&job.number) {
            return Vec::new();
        }
        if job.about.attached {
            self.remove(job);
            return vec![job.clone()];
        }
        let bytes = job.kept_bytes();
        self.ended.push_back((job.number, bytes));
        self.kept += bytes;
        let mut forgotten = Vec::new();
        while self.ended.len() > self.limits.keep_jobs || self.kept > self.limits.keep_output {
            let oldest = self
                .ended
                .front()
                .and_then(|(number, _)| self.jobs.get(number));
            let Some(oldest) = oldest.cloned() else { break };
            self.remove(&oldest);
            forgotten.push(oldest);
        }
        forgotten
    }
}

/// How many jobs are listed while nobody else can look.
const PAGE: usize = 64;
