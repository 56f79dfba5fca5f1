//! Running cases: one at a time, or all that apply.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::alloc;
use crate::caps::Cap;
use crate::case::{Body, Case, catalogue};
use crate::context::{Cx, Mode};
use crate::panics::Panics;
use crate::report::{CaseReport, Failure, Outcome, Report};
use crate::target::Target;

/// How a run is made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// What random choices are drawn from.
    pub seed: u64,
    /// Which cases, by id, alias or a pattern with `*`.
    pub only: String,
    /// How many cases run at the same time.
    pub jobs: usize,
    /// Which clocks cases run by.
    pub clocks: Clocks,
    /// The most real time that one run of a case gets, where its own limit is not less.
    pub patience: Duration,
}

impl Default for Options {
    /// Every case, one at a time, by both clocks, with seed 1.
    fn default() -> Self {
        Self {
            seed: 1,
            only: "*".to_owned(),
            jobs: 1,
            clocks: Clocks::Both,
            patience: Duration::from_secs(60),
        }
    }
}

/// The clocks that cases run by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Clocks {
    /// Virtual time where the transport allows, and real time as well.
    Both,
    /// Virtual time alone where the transport allows: quick, and the same on every machine.
    Virtual,
}

/// Runs every selected case against `target`.
pub fn run_all(target: &Target, options: &Options) -> Report {
    run_all_with(target, options, |_| {})
}

/// Runs every selected case and shows each result as it comes.
pub fn run_all_with(
    target: &Target,
    options: &Options,
    progress: impl Fn(&CaseReport) + Sync,
) -> Report {
    let selected = catalogue().filter(|case| case.matches(&options.only));
    // What cases share through their target, such as a session cache, is freed by whichever thread replaces it: those
    // that count one thread's memory run by themselves.
    let (alone, together): (Vec<_>, Vec<_>) = selected
        .enumerate()
        .partition(|(_, case)| case.needs.contains(&Cap::Allocator));
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(alone.len() + together.len()));
    let run = |&(i, case): &(usize, &'static Case)| {
        let report = run_case(target, case, options);
        progress(&report);
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        results.push((i, report));
    };
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, together.len().max(1)) {
            scope.spawn(|| {
                while let Some(case) = together.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run(case);
                }
            });
        }
    });
    alone.iter().for_each(run);
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(i, _)| *i);
    Report {
        target: target.name.clone(),
        seed: options.seed,
        cases: results.into_iter().map(|(_, report)| report).collect(),
    }
}

/// Runs one case, on a thread and a runtime of its own, by every clock that applies. Blocks until it is done or its
/// time is up. A case that never yields cannot be ended: its thread is left behind.
pub fn run_case(target: &Target, case: &'static Case, options: &Options) -> CaseReport {
    let start = Instant::now();
    let outcome = match missing(target, case) {
        Some(cap) => Outcome::Skipped(cap),
        None => modes(target, case, options.clocks)
            .into_iter()
            .find_map(|mode| attempt(target, case, mode, options).err())
            .map_or(Outcome::Passed, Outcome::Failed),
    };
    CaseReport {
        case,
        outcome,
        took: start.elapsed(),
    }
}

/// The text of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a panic: {}", text.unwrap_or("without a text"))
}

/// The first capability that the case needs and the target does not claim.
fn missing(target: &Target, case: &Case) -> Option<Cap> {
    let virtual_only = matches!(case.body, Body::Virtual(_)).then_some(&Cap::InMemory);
    let mut needs = case.needs.iter().chain(virtual_only);
    needs
        .find(|&&cap| {
            if cap == Cap::Allocator {
                !alloc::installed()
            } else {
                !target.caps.has(cap)
            }
        })
        .copied()
}

fn modes(target: &Target, case: &Case, clocks: Clocks) -> Vec<Mode> {
    let in_memory = target.caps.has(Cap::InMemory);
    match (case.body, in_memory, clocks) {
        (Body::Virtual(_), ..) | (Body::Steps(_), true, _) => vec![Mode::Paused],
        (Body::Steps(_), false, _) => vec![Mode::Current],
        (Body::Tasks(_), true, Clocks::Virtual) => vec![Mode::Paused],
        (Body::Tasks(_), true, Clocks::Both) => vec![Mode::Paused, Mode::Threads],
        (Body::Tasks(_), false, _) => vec![Mode::Threads],
    }
}

/// Runs a case once, with a watchdog in real time: virtual time stands still while a task is busy.
fn attempt(
    target: &Target,
    case: &'static Case,
    mode: Mode,
    options: &Options,
) -> Result<(), Failure> {
    let cx = Cx::new(target.clone(), mode, options.seed);
    let watched = cx.clone();
    let limit = case.limit.min(options.patience);
    let (done, result) = sync_channel(1);
    let (stop, stopped) = oneshot::channel();
    let watch = Panics::default();
    let spawned = std::thread::Builder::new()
        .name(case.id.to_owned())
        .spawn(move || {
            watch.watch();
            let run = AssertUnwindSafe(|| run_on(mode, case, cx, stopped, &watch));
            let ended = std::panic::catch_unwind(run)
                .unwrap_or_else(|panic| {
                    watch.none()?;
                    Err(Failure::new("no panic", panic_text(&*panic)))
                })
                .and_then(|()| watch.none());
            // Nobody listens any more once the watchdog has given up.
            let _ = done.send(ended);
        });
    let thread = match spawned {
        Ok(thread) => thread,
        Err(error) => return Err(Failure::new("a thread to run on", error.to_string())),
    };
    let ended = match result.recv_timeout(limit) {
        Err(RecvTimeoutError::Timeout) => {
            // Ends everything that yields now and then.
            let _ = stop.send(limit);
            result.recv_timeout(GRACE)
        }
        ended => ended,
    };
    let finished = ended.is_ok();
    let outcome = ended.unwrap_or_else(|_| {
        let expected = format!("an end within {limit:?}");
        Err(Failure::new(expected, "a thread that is blocked"))
    });
    if finished {
        // The runtime is gone; only thread-local destructors are left.
        let _ = thread.join();
    }
    outcome.map_err(|failure| {
        let place = format!("while {}", watched.last_step());
        let mut failure = failure.at(place);
        if let Some(at) = &mut failure.at {
            at.push_str(", ");
            at.push_str(mode.name());
        }
        failure
    })
}

/// Runs a case to its end, to its limit on the clock it runs by, or to the watchdog's word.
fn run_on(
    mode: Mode,
    case: &Case,
    cx: Cx,
    stopped: oneshot::Receiver<Duration>,
    panics: &Panics,
) -> Result<(), Failure> {
    let runtime = runtime(mode, panics.clone())
        .map_err(|error| Failure::new("a runtime to run on", error.to_string()))?;
    let (Body::Steps(run) | Body::Tasks(run) | Body::Virtual(run)) = case.body;
    let steps = matches!(case.body, Body::Steps(_));
    let outcome = runtime.block_on(async {
        // Polling by hand has no budget that would make tokio's streams pending without a reason.
        let body = async {
            if steps {
                tokio::task::unconstrained(run(cx)).await
            } else {
                run(cx).await
            }
        };
        let stuck = |limit, seen| {
            let expected = format!("an end within {limit:?}");
            Err(Failure::new(expected, seen))
        };
        tokio::select! {
            outcome = tokio::time::timeout(case.limit, body) => {
                outcome.unwrap_or_else(|_| stuck(case.limit, "a case that is stuck"))
            }
            // Virtual time stands still only while somebody works.
            Ok(limit) = stopped => stuck(limit, match mode {
                Mode::Paused => "tasks that go round and round",
                Mode::Current | Mode::Threads => "a case that is stuck",
            }),
        }
    });
    runtime.shutdown_background();
    outcome
}

fn runtime(mode: Mode, panics: Panics) -> std::io::Result<Runtime> {
    match mode {
        Mode::Current => Builder::new_current_thread().enable_all().build(),
        Mode::Paused => Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build(),
        Mode::Threads => Builder::new_multi_thread()
            .worker_threads(2)
            .on_thread_start(move || panics.watch())
            .enable_all()
            .build(),
    }
}

/// What a case that was told to stop may take before its thread is given up.
const GRACE: Duration = Duration::from_secs(5);
