//! What a process keeps in memory, as the kernel counts it.

use std::{collections::HashMap, fs};

use anyhow::{Context, Result};

use super::figure::median;

/// Resident memory of a process, in KiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Resident {
    /// All of it.
    pub total: f64,
    /// What is the process' own: heap, stacks, what it wrote.
    pub anonymous: f64,
}

impl Resident {
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        parse(&text).with_context(|| format!("no figures in {path}"))
    }

    /// The middle of some measurements.
    pub fn median(of: &[Self]) -> Self {
        let middle = |field: fn(&Self) -> f64| median(&of.iter().map(field).collect::<Vec<_>>());
        Self {
            total: middle(|resident| resident.total),
            anonymous: middle(|resident| resident.anonymous),
        }
    }
}

fn parse(text: &str) -> Option<Resident> {
    let fields: HashMap<&str, f64> = text
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name, value.split_whitespace().next()?.parse().ok()?))
        })
        .collect();
    Some(Resident {
        total: *fields.get("Rss")?,
        anonymous: *fields.get("Anonymous")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let text = "55d0-7ffc ---p 00000000 00:00 0  [rollup]\nRss:   1234 kB\nPss:  1000 kB\nAnonymous:  900 kB\n";
        let resident = parse(text).unwrap();
        assert_eq!((resident.total, resident.anonymous), (1234.0, 900.0));
    }

    #[test]
    fn one_round_that_is_off_counts_for_nothing() {
        let of = |total, anonymous| Resident { total, anonymous };
        let rounds = [of(10.0, 1.0), of(99.0, 2.0), of(11.0, 9.0)];
        assert_eq!(Resident::median(&rounds), of(11.0, 2.0));
    }
}
