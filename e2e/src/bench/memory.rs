//! What a process keeps in memory, as the kernel counts it.

use std::{collections::HashMap, fs};

use anyhow::{Context, Result};

/// Resident memory of a process, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resident {
    /// All of it.
    pub total: u64,
    /// What is the process' own: heap, stacks, what it wrote.
    pub anonymous: u64,
}

impl Resident {
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        parse(&text).with_context(|| format!("no figures in {path}"))
    }
}

fn parse(text: &str) -> Option<Resident> {
    let fields: HashMap<&str, u64> = text
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
        assert_eq!((resident.total, resident.anonymous), (1234, 900));
    }
}
