//! Interleaved rounds, and ratios of what was measured side by side.

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// One side of a comparison: its name, and a way to measure it once.
pub(crate) struct Arm<'a> {
    /// Its name in results.
    pub(crate) name: &'static str,
    /// Measures once: one figure, or several that come out of one measurement.
    pub(crate) measure: Box<dyn FnMut() -> Result<Vec<f64>> + 'a>,
}

/// What each arm measured in each round.
pub(crate) struct Rounds {
    values: Vec<(&'static str, Vec<Vec<f64>>)>,
}

impl Rounds {
    /// Measures every arm once per round. Every other round goes the other way around, so that neither
    /// side of a pair always comes first.
    pub(crate) fn run(mut arms: Vec<Arm<'_>>, rounds: u32) -> Result<Self> {
        let mut values: Vec<(&'static str, Vec<Vec<f64>>)> =
            arms.iter().map(|arm| (arm.name, Vec::new())).collect();
        for round in 0..rounds {
            let mut order: Vec<usize> = (0..arms.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let value = (arms[index].measure)()
                    .with_context(|| format!("{}, round {}", arms[index].name, round + 1))?;
                values[index].1.push(value);
            }
        }
        Ok(Self { values })
    }

    /// The figure at `index` of an arm, round by round.
    fn of(&self, name: &str, index: usize) -> Option<Vec<f64>> {
        let (_, rounds) = self.values.iter().find(|(arm, _)| *arm == name)?;
        rounds
            .iter()
            .map(|figures| figures.get(index).copied())
            .collect()
    }

    /// Compares the figures at `index` of two arms; `None` when one of them was not measured.
    pub(crate) fn compare(
        &self,
        name: &str,
        unit: &'static str,
        index: usize,
        (baseline, candidate): (&'static str, &'static str),
    ) -> Option<Comparison> {
        let (base, cand) = (self.of(baseline, index)?, self.of(candidate, index)?);
        let ratios: Vec<f64> = base.iter().zip(&cand).map(|(b, c)| c / b).collect();
        let rounds = ratios.len();
        Some(Comparison {
            name: name.to_owned(),
            unit,
            baseline: Side {
                name: baseline,
                median: median(&base),
            },
            candidate: Side {
                name: candidate,
                median: median(&cand),
            },
            ratio: Ratio {
                median: median(&ratios),
                min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
                max: ratios.iter().copied().fold(0.0, f64::max),
            },
            rounds,
        })
    }
}

/// The middle value; the mean of the two middle ones of an even number.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The smallest value that at least a share `q` of the values does not pass (nearest rank).
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

/// One line of the results: ratios are candidate to baseline, of the same round.
#[derive(Serialize, Debug)]
pub(crate) struct Comparison {
    name: String,
    unit: &'static str,
    baseline: Side,
    candidate: Side,
    ratio: Ratio,
    rounds: usize,
}

#[derive(Serialize, Debug)]
struct Side {
    name: &'static str,
    median: f64,
}

#[derive(Serialize, Debug)]
struct Ratio {
    median: f64,
    min: f64,
    max: f64,
}

/// Where results go: a line per comparison into the file at once, a table at the end.
pub(crate) struct Report {
    file: Option<File>,
    lines: Vec<Comparison>,
}

impl Report {
    /// Opens the file.
    pub(crate) fn new(path: Option<&Path>) -> Result<Self> {
        let file = path
            .map(|path| File::create(path).with_context(|| format!("create {}", path.display())))
            .transpose()?;
        Ok(Self {
            file,
            lines: Vec::new(),
        })
    }

    /// Keeps a comparison.
    pub(crate) fn add(&mut self, comparison: Comparison) -> Result<()> {
        if let Some(file) = &mut self.file {
            writeln!(file, "{}", serde_json::to_string(&comparison)?)?;
        }
        eprintln!(
            "{}: {} / {} = {:.3}",
            comparison.name,
            comparison.candidate.name,
            comparison.baseline.name,
            comparison.ratio.median
        );
        self.lines.push(comparison);
        Ok(())
    }

    /// True when nothing was compared.
    pub(crate) const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header([
            "benchmark",
            "unit",
            "baseline",
            "median",
            "candidate",
            "median",
            "ratio",
            "min",
            "max",
        ]);
        for line in &self.lines {
            table.add_row([
                line.name.clone(),
                line.unit.to_owned(),
                line.baseline.name.to_owned(),
                figure(line.baseline.median),
                line.candidate.name.to_owned(),
                figure(line.candidate.median),
                format!("{:.3}", line.ratio.median),
                format!("{:.3}", line.ratio.min),
                format!("{:.3}", line.ratio.max),
            ]);
        }
        for column in [3, 5, 6, 7, 8] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{table}");
    }
}

fn figure(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_interleaved_and_paired() {
        let log = std::cell::RefCell::new(Vec::new());
        let arm = |name: &'static str, factor: f64| {
            let (log, mut round) = (&log, 0.0);
            Arm {
                name,
                measure: Box::new(move || {
                    log.borrow_mut().push(name);
                    round += 1.0;
                    Ok(vec![round * factor])
                }),
            }
        };
        let rounds = Rounds::run(vec![arm("a", 1.0), arm("b", 2.0)], 4).unwrap();
        assert_eq!(*log.borrow(), ["a", "b", "b", "a", "a", "b", "b", "a"]);
        let line = rounds.compare("x", "unit", 0, ("a", "b")).unwrap();
        assert_eq!(line.ratio.median, 2.0);
        assert_eq!((line.ratio.min, line.ratio.max), (2.0, 2.0));
        assert_eq!(line.baseline.median, 2.5);
        assert_eq!(line.rounds, 4);
        assert!(rounds.compare("x", "unit", 0, ("a", "c")).is_none());
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=50).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), 25.0);
        assert_eq!(quantile(&values, 0.99), 50.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn the_json_line_has_the_promised_fields() {
        let arm = |name| Arm {
            name,
            measure: Box::new(|| Ok(vec![1.0])),
        };
        let rounds = Rounds::run(vec![arm("a"), arm("b")], 1).unwrap();
        let line = rounds.compare("x", "unit", 0, ("a", "b")).unwrap();
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"name":"x","unit":"unit","baseline":{"name":"a","median":1.0},"candidate":{"name":"b","median":1.0},"ratio":{"median":1.0,"min":1.0,"max":1.0},"rounds":1}"#
        );
    }
}
