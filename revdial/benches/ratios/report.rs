//! The figures, as a table and as JSON.

use std::fmt::Write as _;

/// The figures of one multiplexer.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<(&'static str, Figure)>);

#[derive(Debug)]
enum Figure {
    One(f64),
    List(Vec<f64>),
}

impl Figures {
    pub(crate) fn add(&mut self, key: &'static str, figure: f64) {
        self.0.push((key, Figure::One(figure)));
    }

    pub(crate) fn add_list(&mut self, key: &'static str, figures: Vec<f64>) {
        self.0.push((key, Figure::List(figures)));
    }

    fn text(&self, key: &str) -> String {
        match self.0.iter().find(|(name, _)| *name == key) {
            Some((_, Figure::One(figure))) => short(*figure),
            Some((_, Figure::List(figures))) => figures
                .iter()
                .copied()
                .map(short)
                .collect::<Vec<_>>()
                .join(" "),
            None => "-".to_owned(),
        }
    }

    /// The members of a JSON object.
    fn members(&self) -> Vec<String> {
        let member = |(key, figure): &(&str, Figure)| match figure {
            Figure::One(figure) => format!("\"{key}\":{}", number(*figure)),
            Figure::List(figures) => {
                let figures: Vec<String> = figures.iter().copied().map(number).collect();
                format!("\"{key}\":[{}]", figures.join(","))
            }
        };
        self.0.iter().map(member).collect()
    }
}

/// All figures.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) revdial: Figures,
    pub(crate) yamux: Figures,
    pub(crate) tokio_yamux: Figures,
}

impl Report {
    /// Adds a figure of each multiplexer, ours first.
    pub(crate) fn add_all(&mut self, key: &'static str, [revdial, yamux, tokio_yamux]: [f64; 3]) {
        self.revdial.add(key, revdial);
        self.yamux.add(key, yamux);
        self.tokio_yamux.add(key, tokio_yamux);
    }

    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{:<32} {:>10} {:>10} {:>12}\n",
            "", "revdial", "yamux", "tokio-yamux"
        );
        for (key, _) in &self.revdial.0 {
            let _ = writeln!(
                table,
                "{key:<32} {:>10} {:>10} {:>12}",
                self.revdial.text(key),
                self.yamux.text(key),
                self.tokio_yamux.text(key),
            );
        }
        table
    }

    /// One line: our figures, and the others' in objects beside them.
    pub(crate) fn json(&self) -> String {
        let mut members = self.revdial.members();
        members.push(format!("\"yamux\":{{{}}}", self.yamux.members().join(",")));
        let members_of_other = self.tokio_yamux.members().join(",");
        members.push(format!("\"tokio_yamux\":{{{members_of_other}}}"));
        format!("{{{}}}", members.join(","))
    }
}

fn short(figure: f64) -> String {
    if figure >= 100.0 {
        format!("{figure:.0}")
    } else {
        format!("{figure:.3}")
    }
}

/// A JSON number; JSON has no infinity.
fn number(figure: f64) -> String {
    if figure.is_finite() {
        format!("{:.4}", figure)
    } else {
        "null".to_owned()
    }
}
