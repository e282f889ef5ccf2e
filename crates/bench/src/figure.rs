//! A figure: what was measured, beside whom, and what was wanted.

use std::io::Write as _;

use anyhow::Result;
use serde::Serialize;

use crate::pairing::Samples;

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// One figure; its fields, in this order, are a line of `--json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    figure: &'static str,
    /// The median.
    value: f64,
    unit: &'static str,
    /// The opponent's median, in the same unit.
    opponent: Option<f64>,
    /// `value` ÷ `opponent`, unless the note says otherwise: what the goal is
    /// about, where there is an opponent.
    ratio: Option<f64>,
    /// None where nothing was promised.
    goal: Option<f64>,
    better: Better,
    opponent_name: Option<String>,
    rounds: usize,
    /// The least and the greatest value.
    spread: (f64, f64),
    /// What was measured exactly.
    note: String,
}

impl Figure {
    /// A figure without opponent and goal.
    pub(crate) fn new(
        figure: &'static str,
        unit: &'static str,
        better: Better,
        samples: &Samples,
    ) -> Self {
        Self {
            figure,
            value: samples.median(),
            unit,
            opponent: None,
            ratio: None,
            goal: None,
            better,
            opponent_name: None,
            rounds: samples.rounds(),
            spread: samples.spread(),
            note: String::new(),
        }
    }

    /// Compared with this median of somebody else.
    pub(crate) fn against(mut self, name: impl Into<String>, opponent: f64) -> Self {
        self.opponent = Some(opponent);
        self.ratio = Some(self.value / opponent);
        self.opponent_name = Some(name.into());
        self
    }

    /// As [`against`](Self::against), where so much of the value was granted
    /// before anything is compared.
    pub(crate) fn against_after(
        self,
        granted: f64,
        name: impl Into<String>,
        opponent: f64,
    ) -> Self {
        let ratio = (self.value - granted) / opponent;
        Self { ratio: Some(ratio), ..self.against(name, opponent) }
    }

    /// What was promised: of the ratio, or of the value without an opponent.
    pub(crate) fn goal(mut self, goal: f64) -> Self {
        self.goal = Some(goal);
        self
    }

    /// What else must be known to understand it.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Whether it keeps its promise; `None` without one.
    fn is_met(&self) -> Option<bool> {
        let compared = self.ratio.unwrap_or(self.value);
        self.goal.map(|goal| match self.better {
            Better::Higher => compared >= goal,
            Better::Lower => compared <= goal,
        })
    }

    fn row(&self) -> [String; 6] {
        let opponent = match (&self.opponent_name, self.opponent) {
            (Some(name), Some(value)) => format!("{} ({name})", short(value)),
            _ => String::new(),
        };
        let sign = match self.better {
            Better::Higher => "≥",
            Better::Lower => "≤",
        };
        let verdict = match self.is_met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        [
            self.figure.to_owned(),
            format!("{} {}", short(self.value), self.unit),
            opponent,
            self.ratio.map(short).unwrap_or_default(),
            self.goal.map(|goal| format!("{sign} {}", short(goal))).unwrap_or_default(),
            verdict.to_owned(),
        ]
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Where figures go: lines of JSON at once, or a table at the end.
pub(crate) struct Report {
    json: bool,
    /// Names of the figures that are wanted; none means all.
    only: Vec<String>,
    figures: Vec<Figure>,
    /// Those that could not be had, and why.
    skipped: Vec<(&'static str, String)>,
}

impl Report {
    pub(crate) fn new(json: bool, only: Vec<String>) -> Self {
        Self { json, only, figures: Vec::new(), skipped: Vec::new() }
    }

    fn wants(&self, figure: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == figure)
    }

    pub(crate) fn add(&mut self, figure: Figure) -> Result<()> {
        if !self.wants(figure.figure) {
            return Ok(());
        }
        if self.json {
            let mut out = std::io::stdout().lock();
            serde_json::to_writer(&mut out, &figure)?;
            writeln!(out)?;
            out.flush()?;
        }
        self.figures.push(figure);
        Ok(())
    }

    /// Says that a figure is missing, at once and again at the end.
    pub(crate) fn skip(&mut self, figure: &'static str, why: &str) {
        if self.wants(figure) {
            eprintln!("   SKIPPED {figure}: {why}");
            self.skipped.push((figure, why.to_owned()));
        }
    }

    /// The table, if people read.
    pub(crate) fn finish(&self) {
        if !self.json {
            print!("{}", table(&self.figures));
            for (figure, why) in &self.skipped {
                println!("{figure}: SKIPPED: {why}");
            }
        }
    }
}

fn table(figures: &[Figure]) -> String {
    let head = ["figure", "value", "opponent", "ratio", "goal", ""].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(figures.iter().map(Figure::row)).collect();
    let widths: [usize; 6] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    let promised = figures.iter().filter_map(Figure::is_met);
    let (met, all) = promised.fold((0, 0), |(met, all), is| (met + usize::from(is), all + 1));
    text.push_str(&format!("\n{met} of {all} goals met\n"));
    for figure in figures.iter().filter(|figure| !figure.note.is_empty()) {
        text.push_str(&format!("{}: {}\n", figure.figure, figure.note));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Samples {
        Samples::of([3.0, 1.0, 2.0])
    }

    #[test]
    fn a_line_has_the_promised_keys_in_order() {
        let figure = Figure::new("f", "MB/s", Better::Higher, &samples()).against("o", 4.0);
        assert_eq!(
            serde_json::to_string(&figure.goal(0.5)).unwrap(),
            r#"{"figure":"f","value":2.0,"unit":"MB/s","opponent":4.0,"ratio":0.5,"goal":0.5,"better":"higher","opponent_name":"o","rounds":3,"spread":[1.0,3.0],"note":""}"#
        );
    }

    #[test]
    fn the_ratio_is_judged_where_there_is_one_and_else_the_value() {
        let figure = || Figure::new("f", "ms", Better::Lower, &samples());
        let verdicts = [
            figure().is_met(),
            figure().goal(2.0).is_met(),
            figure().goal(1.9).is_met(),
            figure().against("o", 1.0).goal(1.9).is_met(),
            figure().against("o", 2.0).goal(1.9).is_met(),
        ];
        assert_eq!(verdicts, [None, Some(true), Some(false), Some(false), Some(true)]);
        assert_eq!(
            table(&[figure().goal(1.9)]),
            "figure  value    opponent  ratio  goal\n\
             f       2.00 ms                   ≤ 1.90  MISSED\n\n0 of 1 goals met\n"
        );
    }
}
