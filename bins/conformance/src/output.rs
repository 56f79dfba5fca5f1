//! Reports as text, JSON and JUnit's XML.

use std::io::{self, Write};

use conn_conformance::mutants::{Mutant, MutantReport};
use conn_conformance::{Group, Outcome, Report, catalogue};
use serde_json::{Value, json};

/// The command that runs one case again.
pub(crate) fn again(target: &str, id: &str, seed: u64) -> String {
    format!("conformance run --on {target} --only {id} --seed {seed}")
}

/// The catalogue, a line for each case under its group.
pub(crate) fn list_text(out: &mut impl Write) -> io::Result<()> {
    for group in Group::ALL {
        let cases: Vec<_> = catalogue().filter(|case| case.group == *group).collect();
        if cases.is_empty() {
            continue;
        }
        writeln!(out, "{group}")?;
        for case in cases {
            let alias = case
                .alias
                .map_or(String::new(), |alias| format!(" ({alias})"));
            writeln!(out, "  {:36} {}{alias}", case.id, case.title)?;
        }
    }
    writeln!(out, "{} cases", catalogue().count())
}

/// The catalogue, everything that is known of each case.
pub(crate) fn list_json(out: &mut impl Write) -> io::Result<()> {
    let cases: Vec<Value> = catalogue()
        .map(|case| {
            let needs: Vec<_> = case.needs.iter().map(|cap| cap.name()).collect();
            json!({
                "id": case.id,
                "alias": case.alias,
                "group": case.group.name(),
                "title": case.title,
                "promise": case.promise,
                "source": case.source,
                "bug": case.bug,
                "seconds": case.limit.as_secs(),
                "needs": needs,
            })
        })
        .collect();
    write_json(&Value::from(cases), out)
}

/// What did not pass, with how to run it again, and the sums.
pub(crate) fn run_text(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for case in &report.cases {
        let Some(detail) = case.outcome.detail() else {
            continue;
        };
        writeln!(out, "{} {}: {detail}", case.outcome.name(), case.case.id)?;
        if matches!(case.outcome, Outcome::Failed(_)) {
            writeln!(out, "  promise: {}", case.case.promise)?;
            let again = again(&report.target, case.case.id, report.seed);
            writeln!(out, "  again:   {again}")?;
        }
    }
    writeln!(
        out,
        "{}: {} passed, {} failed, {} skipped (seed {})",
        report.target,
        report.passed(),
        report.failed(),
        report.skipped(),
        report.seed
    )
}

/// `{target, seed, passed, failed, skipped, cases: [{id, outcome, seconds, detail}]}`.
pub(crate) fn run_json(report: &Report, out: &mut impl Write) -> io::Result<()> {
    write_json(&report_value(report), out)
}

fn report_value(report: &Report) -> Value {
    let cases: Vec<Value> = report
        .cases
        .iter()
        .map(|case| {
            json!({
                "id": case.case.id,
                "outcome": case.outcome.name(),
                "seconds": case.took.as_secs_f64(),
                "detail": case.outcome.detail(),
            })
        })
        .collect();
    json!({
        "target": &*report.target,
        "seed": report.seed,
        "passed": report.passed(),
        "failed": report.failed(),
        "skipped": report.skipped(),
        "cases": cases,
    })
}

fn write_json(value: &Value, out: &mut impl Write) -> io::Result<()> {
    // By way of a string: whoever closed our output is an `io::Error` then, and not one of JSON's.
    let text = serde_json::to_string_pretty(value)?;
    writeln!(out, "{text}")?;
    Ok(())
}

/// A mutant and what came of it.
pub(crate) type Row = (&'static Mutant, MutantReport);

/// The table of mutants, and the kill rates.
pub(crate) fn mutants_text(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    for (mutant, report) in rows {
        let outcome = if report.killed { "killed" } else { "SURVIVED" };
        let nettest = if report.killed_by_nettest {
            "nettest too"
        } else {
            ""
        };
        writeln!(
            out,
            "{outcome:8} {:28} {:36} {nettest}",
            mutant.name, mutant.named_case
        )?;
    }
    let (killed, nettest) = kills(rows);
    writeln!(
        out,
        "{} mutants: {killed} killed by their named cases ({}), {nettest} by nettest's eleven ({})",
        rows.len(),
        percent(killed, rows.len()),
        percent(nettest, rows.len())
    )
}

fn kills(rows: &[Row]) -> (usize, usize) {
    let count = |which: fn(&MutantReport) -> bool| rows.iter().filter(|row| which(&row.1)).count();
    (
        count(|report| report.killed),
        count(|report| report.killed_by_nettest),
    )
}

fn percent(part: usize, whole: usize) -> String {
    format!("{} %", part * 100 / whole.max(1))
}

/// `{mutants, killed, nettest_killed, rows: [{mutant, fault, killed_by, named_case}]}`.
pub(crate) fn mutants_json(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    let (killed, nettest_killed) = kills(rows);
    let table: Vec<Value> = rows
        .iter()
        .map(|(mutant, report)| {
            json!({
                "mutant": mutant.name,
                "fault": mutant.fault,
                "killed_by": report.killed_by,
                "named_case": mutant.named_case,
            })
        })
        .collect();
    let value = json!({
        "mutants": rows.len(),
        "killed": killed,
        "nettest_killed": nettest_killed,
        "rows": table,
    });
    write_json(&value, out)
}

/// One test suite in the XML that JUnit made common.
pub(crate) fn run_junit(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(
        out,
        r#"<testsuite name="{}" tests="{}" failures="{}" skipped="{}">"#,
        escape(&report.target),
        report.cases.len(),
        report.failed(),
        report.skipped()
    )?;
    for case in &report.cases {
        let detail = escape(&case.outcome.detail().unwrap_or_default());
        let inner = match case.outcome.name() {
            "passed" => String::new(),
            "skipped" => format!(r#"<skipped message="{detail}"/>"#),
            _ => format!(r#"<failure message="{detail}"/>"#),
        };
        writeln!(
            out,
            r#"  <testcase classname="{}" name="{}" time="{:.3}">{inner}</testcase>"#,
            case.case.group,
            case.case.id,
            case.took.as_secs_f64()
        )?;
    }
    writeln!(out, "</testsuite>")
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_is_escaped() {
        assert_eq!(escape("a<b & \"c\"\u{7}"), "a&lt;b &amp; &quot;c&quot; ");
    }
}
