//! One line of the table.

use serde_json::json;

/// A figure: what was measured of ours, of the peer (or the limit), and what is aimed at.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Its short name.
    pub figure: &'static str,
    /// What is compared with the target.
    pub value: f64,
    /// The first target, if there is one: the value should not be above it.
    pub target: Option<f64>,
    /// What the agent took.
    pub ours: f64,
    /// What the peer took, or the limit is; none where the target is a plain number.
    pub peer: Option<f64>,
    /// Unit of `ours` and `peer`.
    pub unit: &'static str,
    /// How it was measured.
    pub note: String,
}

impl Figure {
    /// The figure as one line of JSON.
    #[must_use]
    pub fn line(&self) -> String {
        let short = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({
            "figure": self.figure, "value": short(self.value), "target": self.target,
            "ours": short(self.ours), "peer": self.peer.map(short), "unit": self.unit, "note": self.note,
        })
        .to_string()
    }
}

/// The middle of some measurements; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    if sorted.len().is_multiple_of(2) && middle > 0 {
        f64::midpoint(at(middle - 1), at(middle))
    } else {
        at(middle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_line_is_json() {
        let figure = Figure {
            figure: "P7",
            value: 1.234_56,
            target: Some(2.0),
            ours: 5.0,
            peer: None,
            unit: "s",
            note: "how".to_owned(),
        };
        let line: serde_json::Value = serde_json::from_str(&figure.line()).unwrap();
        assert_eq!(line["value"], 1.235);
        assert!(line["peer"].is_null());
    }
}
