//! A figure, as it is printed and kept.

use serde::Serialize;

/// What was measured, and what it was to be.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// Its number in the table.
    pub figure: &'static str,
    /// What it is.
    pub note: String,
    /// The ratio.
    pub value: f64,
    /// What it was to be at least, or at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
    /// Whether it is to be that at least.
    pub more_is_better: bool,
    /// What washlet did.
    pub ours: f64,
    /// What the other did.
    pub peer: f64,
    /// The unit of both.
    pub unit: &'static str,
}

impl Figure {
    /// A ratio of two series of measurements, taken in turn.
    pub fn ratio(
        figure: &'static str,
        note: impl Into<String>,
        unit: &'static str,
        ours: &[f64],
        theirs: &[f64],
    ) -> Self {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        Self {
            figure,
            note: note.into(),
            value: median(&ratios),
            target: None,
            more_is_better: true,
            ours: median(ours),
            peer: median(theirs),
            unit,
        }
    }

    /// What it is to be at least.
    pub fn at_least(mut self, target: f64) -> Self {
        (self.target, self.more_is_better) = (Some(target), true);
        self
    }

    /// What it is to be at most.
    pub fn at_most(mut self, target: f64) -> Self {
        (self.target, self.more_is_better) = (Some(target), false);
        self
    }

    /// Prints it.
    pub fn print(&self) {
        if let Ok(line) = serde_json::to_string(self) {
            println!("{line}");
        }
    }
}

/// The middle one; of an even number the mean of both.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (Some(a), Some(b)) if sorted.len().is_multiple_of(2) => f64::midpoint(*a, *b),
        (_, Some(b)) => *b,
        _ => f64::NAN,
    }
}

/// The value below which a share of all lie.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    sorted.get(at.min(last)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
        let sorted: Vec<f64> = (0..=100).map(f64::from).collect();
        assert!((quantile(&sorted, 0.99) - 99.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios() {
        // The second round was slow for both.
        let figure = Figure::ratio("P0", "x", "1/s", &[40.0, 4.0, 44.0], &[10.0, 1.0, 10.0]);
        assert!((figure.value - 4.0).abs() < 1e-9);
    }
}
