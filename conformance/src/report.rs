//! What came of a run.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::caps::Cap;
use crate::case::Case;

/// A promise that was not kept.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Failure {
    /// What should have happened.
    pub expected: String,
    /// What happened.
    pub seen: String,
    /// Where in the case: at which byte, at which poll, in which step.
    pub at: Option<String>,
}

impl Failure {
    /// A failure with both sides of the story.
    pub(crate) fn new(expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self {
            expected: expected.into(),
            seen: seen.into(),
            at: None,
        }
    }

    /// Says where, unless somebody closer to the place has said so.
    pub(crate) fn at(mut self, place: impl Into<String>) -> Self {
        self.at.get_or_insert_with(|| place.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, saw {}", self.expected, self.seen)?;
        match &self.at {
            Some(place) => write!(f, ", {place}"),
            None => Ok(()),
        }
    }
}

/// Turns an I/O error into a failure of the case.
pub(crate) trait Expecting<T> {
    /// Says what should have happened instead.
    fn expecting(self, what: &str) -> Result<T, Failure>;
}

impl<T> Expecting<T> for io::Result<T> {
    fn expecting(self, what: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(what, describe(&error)))
    }
}

/// An I/O error as reports show it: the kind first, because cases are about kinds.
pub(crate) fn describe(error: &io::Error) -> String {
    format!("the error {:?} ({error})", error.kind())
}

/// How one case ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The promise was broken.
    Failed(Failure),
    /// The promise was kept.
    Passed,
    /// The transport does not claim what the case is about.
    Skipped(Cap),
}

impl Outcome {
    /// The word in reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Passed => "passed",
            Self::Skipped(_) => "skipped",
        }
    }

    /// Why, where there is something to say.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Failed(failure) => Some(failure.to_string()),
            Self::Passed => None,
            Self::Skipped(Cap::Allocator) => {
                Some("CountingAllocator is not the global allocator of this program".to_owned())
            }
            Self::Skipped(cap) => Some(format!("{cap} is not claimed")),
        }
    }
}

/// One case of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CaseReport {
    /// The case.
    pub case: &'static Case,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, in real time.
    pub took: Duration,
}

/// All cases of a run, in the order of the catalogue.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The transport's name.
    pub target: Arc<str>,
    /// What the run's random choices were drawn from.
    pub seed: u64,
    /// Every case that was selected.
    pub cases: Vec<CaseReport>,
}

impl Report {
    /// How many cases passed.
    pub fn passed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Passed))
    }

    /// How many cases failed.
    pub fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    /// How many cases did not apply.
    pub fn skipped(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Skipped(_)))
    }

    fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.cases
            .iter()
            .filter(|case| which(&case.outcome))
            .count()
    }
}

/// One line for each case that did not pass, and a line with the sums.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for report in &self.cases {
            if let Some(detail) = report.outcome.detail() {
                writeln!(f, "{} {}: {detail}", report.outcome.name(), report.case.id)?;
            }
        }
        write!(
            f,
            "{}: {} passed, {} failed, {} skipped, seed {}",
            self.target,
            self.passed(),
            self.failed(),
            self.skipped(),
            self.seed
        )
    }
}
