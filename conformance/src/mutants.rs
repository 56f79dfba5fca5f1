//! Connections with one fault each: the test of the tests.
//!
//! A suite is worth what it catches. Each mutant here breaks one promise as some real transport has broken it, and
//! names the case that must notice. [`run_mutant`] says whether it does, and whether Go's eleven cases alone would.

mod control;
mod session;
mod stream;
mod table;
mod waking;

use std::fmt;
use std::time::Duration;

use crate::caps::{Cap, Caps};
use crate::case::{Case, Group, catalogue, find};
use crate::reference::REFERENCE_CAPACITY;
use crate::report::Outcome;
use crate::run::{Clocks, Options, run_case};
use crate::target::Target;

/// A connection with one fault.
#[non_exhaustive]
pub struct Mutant {
    /// Its name: `fin_dropped`.
    pub name: &'static str,
    /// What is wrong with it.
    pub fault: &'static str,
    /// The case that must catch it.
    pub named_case: &'static str,
    make: fn() -> Target,
}

impl Mutant {
    /// The faulty transport.
    pub fn target(&self) -> Target {
        (self.make)()
    }
}

impl fmt::Debug for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutant")
            .field("name", &self.name)
            .field("named_case", &self.named_case)
            .finish_non_exhaustive()
    }
}

/// What came of a mutant.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MutantReport {
    /// Whether its named case failed on it, as it must.
    pub killed: bool,
    /// Whether one of nettest's eleven failed on it.
    pub killed_by_nettest: bool,
    /// The named case and those of nettest that failed.
    pub killed_by: Vec<&'static str>,
}

/// Every mutant.
pub fn mutants() -> impl Iterator<Item = &'static Mutant> {
    table::MUTANTS.iter().flat_map(|page| page.iter())
}

/// Whether the named case fails on the mutant, as it must. Those about memory need the suite's
/// [`CountingAllocator`](crate::CountingAllocator): without it they are skipped, and nothing is caught.
pub fn is_caught(mutant: &Mutant) -> bool {
    let named = find(mutant.named_case);
    named.is_some_and(|case| fails(&mutant.target(), case))
}

/// Runs a mutant's named case and nettest's eleven on it, in virtual time.
pub fn run_mutant(mutant: &Mutant) -> MutantReport {
    let target = mutant.target();
    let killed = is_caught(mutant);
    let nettest: Vec<_> = catalogue()
        .filter(|case| case.group == Group::Nettest && fails(&target, case))
        .map(|case| case.id)
        .collect();
    let killed_by_nettest = !nettest.is_empty();
    let mut killed_by = nettest;
    if killed && !killed_by.contains(&mutant.named_case) {
        killed_by.insert(0, mutant.named_case);
    }
    MutantReport {
        killed,
        killed_by_nettest,
        killed_by,
    }
}

fn fails(target: &Target, case: &'static Case) -> bool {
    let options = Options {
        clocks: Clocks::Virtual,
        patience: PATIENCE,
        ..Options::default()
    };
    let outcome = run_case(target, case, &options).outcome;
    matches!(outcome, Outcome::Failed(_))
}

/// Real time for a case that goes round and round; sound ones take a fraction of it.
const PATIENCE: Duration = Duration::from_secs(4);

/// What the reference pair, and so every mutant made from it, claims.
pub(crate) const REFERENCE_CAPS: Caps = Caps::of(&[
    Cap::Addresses,
    Cap::CloseHandle,
    Cap::Deadlines,
    Cap::HalfClose,
    Cap::InMemory,
    Cap::PeerGone,
    Cap::ReentrantWake,
    Cap::ResetHandle,
    Cap::ResetVisible,
    Cap::Vectored,
])
.bounded(REFERENCE_CAPACITY);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// For the mutants that waste memory.
    #[global_allocator]
    static ALLOCATOR: crate::CountingAllocator = crate::CountingAllocator;

    #[test]
    fn every_mutant_is_caught_by_the_case_that_it_names() {
        // Some go round and round until their time is up: four at a time are done in a quarter of it.
        let survivors = Mutex::new(Vec::new());
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(mutant) = mutants().nth(next.fetch_add(1, Ordering::Relaxed)) {
                        if !is_caught(mutant) {
                            survivors.lock().unwrap().push(mutant);
                        }
                    }
                });
            }
        });
        let survivors = survivors.into_inner().unwrap();
        assert!(survivors.is_empty(), "{survivors:#?}");
    }

    #[test]
    fn the_session_without_a_fault_keeps_every_promise() {
        let target = session::flawed(crate::reference::SessionFlaw::None);
        let report = crate::run::run_all(&target, &Options::default());
        assert_eq!(report.failed(), 0, "{report}");
        assert!(report.passed() > 60, "{report}");
    }

    #[test]
    fn there_are_a_hundred_mutants_with_names_of_their_own() {
        let names: HashSet<_> = mutants().map(|mutant| mutant.name).collect();
        assert_eq!(names.len(), mutants().count());
        assert!(names.len() >= 100, "{}", names.len());
        for mutant in mutants() {
            assert!(find(mutant.named_case).is_some(), "{mutant:?}");
        }
    }

    #[test]
    fn every_case_has_a_mutant_that_it_must_catch() {
        let named: HashSet<_> = mutants().map(|mutant| mutant.named_case).collect();
        let idle: Vec<_> = catalogue()
            .map(|case| case.id)
            .filter(|id| !named.contains(id))
            .collect();
        assert!(idle.is_empty(), "{idle:?}");
    }
}
