//! The report card: every built-in transport against every group of cases.

use std::io::{self, Write};

use conn_conformance::{CaseReport, Group, Outcome, Report};
use serde_json::Value;

use crate::{output, targets};

/// The card for people.
pub(crate) fn markdown(reports: &[Report], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "# Report card\n\nWritten by `conformance card`. Each cell says how many cases passed, and how many failed \
         after a slash; a dash\nmeans that the transport claims nothing that the group is about. Skipped cases are \
         counted in the last column.\nEach failure names the command that shows it again; one that was seen on several \
         threads is a race, and may take\nseveral attempts. Each case ran once, so a race may also hide behind a pass.\n"
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
            targets::find(&report.target).map_or("", |built_in| built_in.about)
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

/// The card for programs: an array of reports, with a line for each case, so that two cards can be compared line by line.
/// How long a case took is left out: it is never the same twice.
pub(crate) fn json(reports: &[Report], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "[")?;
    for (i, report) in reports.iter().enumerate() {
        writeln!(
            out,
            r#" {{"target": {}, "seed": {}, "passed": {}, "failed": {}, "skipped": {}, "cases": ["#,
            Value::from(&*report.target),
            report.seed,
            report.passed(),
            report.failed(),
            report.skipped()
        )?;
        for (i, case) in report.cases.iter().enumerate() {
            writeln!(
                out,
                r#"  {{"id": {}, "outcome": {}, "detail": {}}}{}"#,
                Value::from(case.case.id),
                Value::from(case.outcome.name()),
                case.outcome.detail().map_or(Value::Null, Value::from),
                comma(i, report.cases.len())
            )?;
        }
        writeln!(out, " ]}}{}", comma(i, reports.len()))?;
    }
    writeln!(out, "]")
}

fn comma(i: usize, len: usize) -> &'static str {
    if i + 1 < len { "," } else { "" }
}

#[cfg(test)]
mod tests {
    use conn_conformance::{Options, run_all};

    use super::*;

    #[test]
    fn the_card_for_programs_is_json_with_a_line_for_each_case() {
        let mut options = Options::default();
        options.only = "addr.*".to_owned();
        let target = targets::find("unix").unwrap().target();
        let reports = vec![run_all(&target, &options), run_all(&target, &options)];
        let mut out = Vec::new();
        json(&reports, &mut out).unwrap();
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value[1]["cases"][0]["outcome"], "skipped");
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 8);
    }
}
