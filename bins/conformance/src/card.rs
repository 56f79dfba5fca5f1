//! The report card: every built-in transport against every group of cases.

use std::io::{self, Write};

use anyhow::Result;
use conn_conformance::{CaseReport, Group, Outcome, Report};
use serde_json::Value;

use crate::{output, targets};

/// The card for people.
pub(crate) fn markdown(reports: &[Report], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "# Report card\n\nWritten by `conformance card`. Each cell says how many cases passed, and how many failed \
         after a slash; a dash\nmeans that the transport claims nothing that the group is about. Skipped cases are \
         counted in the last column.\n"
    )?;
    write!(out, "| transport |")?;
    for group in Group::ALL {
        write!(out, " {group} |")?;
    }
    writeln!(out, " passed | failed | skipped |")?;
    writeln!(out, "|---|{}", "---|".repeat(Group::ALL.len() + 3))?;
    for report in reports {
        row(report, out)?;
    }
    writeln!(out, "\nThe transports:\n")?;
    for report in reports {
        writeln!(
            out,
            "- `{}`: {}",
            report.target,
            targets::about(&report.target)
        )?;
    }
    failures(reports, out)
}

fn row(report: &Report, out: &mut impl Write) -> io::Result<()> {
    write!(out, "| {} |", report.target)?;
    for group in Group::ALL {
        let count = |which: fn(&Outcome) -> bool| {
            let of_group = report.cases.iter().filter(|case| case.case.group == *group);
            of_group.filter(|case| which(&case.outcome)).count()
        };
        let passed = count(|outcome| matches!(outcome, Outcome::Passed));
        let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
        match (passed, failed) {
            (0, 0) => write!(out, " – |")?,
            (_, 0) => write!(out, " {passed} |")?,
            _ => write!(out, " {passed}/**{failed}** |")?,
        }
    }
    writeln!(
        out,
        " {} | {} | {} |",
        report.passed(),
        report.failed(),
        report.skipped()
    )
}

fn failures(reports: &[Report], out: &mut impl Write) -> io::Result<()> {
    for report in reports.iter().filter(|report| report.failed() > 0) {
        writeln!(out, "\n## Failures of {}\n", report.target)?;
        let failed = |case: &&CaseReport| matches!(case.outcome, Outcome::Failed(_));
        for case in report.cases.iter().filter(failed) {
            let detail = case.outcome.detail().unwrap_or_default();
            writeln!(out, "- `{}`: {detail}.", case.case.id)?;
            let again = output::again(&report.target, case.case.id, report.seed);
            writeln!(out, "  `{again}`")?;
        }
    }
    Ok(())
}

/// The card for programs: the reports of `run`, in an array.
pub(crate) fn json(reports: &[Report], out: &mut impl Write) -> Result<()> {
    let reports: Vec<Value> = reports.iter().map(output::report_value).collect();
    output::write_json(&Value::from(reports), out)
}
