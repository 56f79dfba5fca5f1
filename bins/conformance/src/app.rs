use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use conn_conformance::mutants::{mutants, run_mutant};
use conn_conformance::{CaseReport, Options, Target, catalogue, run_all_with};

use crate::{card, output, targets};

/// Says whether connections keep their promises.
#[derive(Debug, Parser)]
#[command(name = "conformance", version)]
#[non_exhaustive]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum Command {
    /// Runs every built-in transport and writes the report card.
    Card {
        /// Where the Markdown goes; the same name with `.json` gets the figures.
        #[arg(long, value_name = "FILE", default_value = "docs/report-card.md")]
        output: PathBuf,
        /// What random choices are drawn from.
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
        /// How many cases run at the same time.
        #[arg(long, value_name = "N", default_value_t = 2)]
        jobs: usize,
    },
    /// Prints the catalogue of cases.
    List {
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Runs the mutants and shows which case catches each.
    Mutants {
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Runs the cases against one built-in transport.
    Run(RunArgs),
}

/// How to run.
#[derive(Debug, clap::Args)]
#[non_exhaustive]
pub struct RunArgs {
    /// The transport.
    #[arg(long, value_name = "TARGET")]
    pub on: String,
    /// The cases, by id or pattern: `io.bulk`, `wake.*`.
    #[arg(long, value_name = "GLOB", default_value = "*")]
    pub only: String,
    /// What random choices are drawn from; drawn itself, and printed, where it is not given.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// How many cases run at the same time.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub jobs: usize,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
#[non_exhaustive]
pub enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
    /// JUnit's XML, which build servers read.
    Junit,
}

/// What the exit code says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Every claimed case passed.
    Kept,
    /// A case failed.
    Broken,
}

impl Verdict {
    fn of(kept: bool) -> Self {
        if kept { Self::Kept } else { Self::Broken }
    }
}

/// Carries out a command and writes its result to `out`.
///
/// # Errors
///
/// The command cannot be started: an unknown transport, a pattern that selects nothing; or `out` fails.
pub fn run(args: &Args, out: &mut impl Write) -> Result<Verdict> {
    match &args.command {
        Command::Card { output, seed, jobs } => card(output, *seed, *jobs, out),
        Command::List { format } => list(*format, out),
        Command::Mutants { format } => run_mutants(*format, out),
        Command::Run(args) => run_target(args, out),
    }
}

fn list(format: Format, out: &mut impl Write) -> Result<Verdict> {
    printed(match format {
        Format::Text => output::list_text(out),
        Format::Json => output::list_json(out),
        Format::Junit => bail!("the catalogue has no JUnit form: use text or json"),
    })?;
    Ok(Verdict::Kept)
}

/// The card is about others: it is written whatever it says.
fn card(path: &Path, seed: u64, jobs: usize, out: &mut impl Write) -> Result<Verdict> {
    let mut reports = Vec::new();
    for built_in in targets::ALL {
        let mut options = Options::default();
        options.seed = seed;
        options.jobs = jobs;
        show(|| format!("{} with seed {seed}", built_in.name));
        let report = run_all_with(&built_in.target(), &options, progress);
        printed(writeln!(
            out,
            "{}: {} passed, {} failed, {} skipped",
            built_in.name,
            report.passed(),
            report.failed(),
            report.skipped()
        ))?;
        reports.push(report);
    }
    let json = path.with_extension("json");
    let mut file = create(path)?;
    card::markdown(&reports, &mut file).with_context(|| format!("writing {}", path.display()))?;
    let mut file = create(&json)?;
    card::json(&reports, &mut file).with_context(|| format!("writing {}", json.display()))?;
    printed(writeln!(
        out,
        "written to {} and {}",
        path.display(),
        json.display()
    ))?;
    Ok(Verdict::Kept)
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("creating {}", path.display()))
}

fn run_mutants(format: Format, out: &mut impl Write) -> Result<Verdict> {
    if format == Format::Junit {
        bail!("the mutants have no JUnit form: use text or json");
    }
    let mut rows = Vec::new();
    for mutant in mutants() {
        let start = Instant::now();
        let report = run_mutant(mutant);
        show(|| {
            let outcome = if report.killed { "killed" } else { "SURVIVED" };
            let seconds = start.elapsed().as_secs_f64();
            format!("{outcome:8} {} ({seconds:.2} s)", mutant.name)
        });
        rows.push((mutant, report));
    }
    printed(match format {
        Format::Json => output::mutants_json(&rows, out),
        Format::Text | Format::Junit => output::mutants_text(&rows, out),
    })?;
    Ok(Verdict::of(rows.iter().all(|(_, report)| report.killed)))
}

fn run_target(args: &RunArgs, out: &mut impl Write) -> Result<Verdict> {
    let target = find_target(&args.on)?;
    if !catalogue().any(|case| case.matches(&args.only)) {
        bail!(
            "no case matches {:?}; `conformance list` shows them all",
            args.only
        );
    }
    let mut options = Options::default();
    options.seed = args.seed.unwrap_or_else(random_seed);
    options.only.clone_from(&args.only);
    options.jobs = args.jobs;
    // Before anything can hang or be interrupted.
    show(|| format!("{} with seed {}", args.on, options.seed));
    let report = run_all_with(&target, &options, progress);
    printed(match args.format {
        Format::Text => output::run_text(&report, out),
        Format::Json => output::run_json(&report, out),
        Format::Junit => output::run_junit(&report, out),
    })?;
    Ok(Verdict::of(report.failed() == 0))
}

/// Whoever closed our output has seen enough; the verdict stands all the same.
fn printed(outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

fn find_target(name: &str) -> Result<Target> {
    let found = targets::find(name).map(targets::BuiltIn::target);
    found.with_context(|| {
        let names: Vec<_> = targets::ALL.iter().map(|built_in| built_in.name).collect();
        format!(
            "no transport is called {name:?}; there are {}",
            names.join(", ")
        )
    })
}

/// A seed that differs from run to run.
fn random_seed() -> u64 {
    RandomState::new().hash_one(std::process::id()) % 1_000_000
}

/// Shows each case as it ends.
fn progress(report: &CaseReport) {
    show(|| {
        let seconds = report.took.as_secs_f64();
        let (outcome, id) = (report.outcome.name(), report.case.id);
        format!("{outcome:7} {id} ({seconds:.2} s)")
    });
}

/// Writes a line where somebody watches.
fn show(line: impl FnOnce() -> String) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        // Progress is a courtesy: a terminal that is gone does not end the run.
        let _ = writeln!(err, "{}", line());
    }
}
