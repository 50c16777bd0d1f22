//! What the machine says of itself: its names, its memory, and what of that workloads may use.

use std::{fmt, fs, ops::Range, path::Path, str::FromStr};

use super::super::convert::{QuantityError, bytes};

/// What the agent needs for itself; the rest of what it may use is its workloads'.
const OVERHEAD: u64 = 128 << 20;

/// What compiling may use in all, in bytes: at least and, unless somebody says so, at most.
const COMPILING: Range<u64> = 128 << 20..1 << 30;

/// How much memory, or place on a disk, something may use in all, in bytes; written as a Kubernetes quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory(u64);

impl FromStr for Memory {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        bytes(text).map(Self)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes % 1024 == 0 => write!(f, "{}Ki", bytes / 1024),
            bytes => write!(f, "{bytes}"),
        }
    }
}

impl Memory {
    /// What is left for workloads of what the agent may use, when compiling has its part; none if nobody says how much that is.
    pub(super) fn of_workloads(compiling: Self) -> Option<Self> {
        let rest = of_this_process()?
            .saturating_sub(OVERHEAD)
            .saturating_sub(compiling.0);
        Some(Self(rest / 1024 * 1024))
    }

    /// What compiling may use in all, if workloads have so much or else as much as that: enough for a guest with an interpreter in
    /// it, if there is; and always enough for a small one.
    pub(super) fn for_compiling(workloads: Option<Self>) -> Self {
        Self(for_compiling(of_this_process(), workloads.map(|w| w.0)))
    }

    /// What compiling may use on a developer's machine.
    #[must_use]
    pub fn half_of_this_machine() -> Self {
        Self(of_this_process().map_or(COMPILING.end, |most| (most / 2).max(COMPILING.start)))
    }

    /// The same in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// What of so much, if anybody says how much it is, is for compiling, when workloads have so much or else as much as that.
fn for_compiling(total: Option<u64>, workloads: Option<u64>) -> u64 {
    let rest = total.map(|total| total.saturating_sub(OVERHEAD));
    let part = match (rest, workloads) {
        (None, _) => COMPILING.end,
        (Some(rest), None) => rest / 2,
        (Some(rest), Some(workloads)) => rest.saturating_sub(workloads),
    };
    part.clamp(COMPILING.start, COMPILING.end)
}

/// What this process may use, by its control group or else by the machine; none if neither says.
fn of_this_process() -> Option<u64> {
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let limit = of_group(Path::new("/sys/fs/cgroup"), &groups);
    let total = machine_memory().0.and_then(|t| u64::try_from(t).ok());
    [limit, total].into_iter().flatten().min()
}

/// The smallest limit of a process's control group and of those above it. Version 2 has one tree, version 1 one for memory.
fn of_group(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            c if c.split(',').any(|c| c == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group = root.join(path.trim_start_matches('/'));
        group
            .ancestors()
            .take_while(|dir| dir.starts_with(&root))
            // `max` is none. Where groups have a namespace of their own, some of the path may not be there.
            .filter_map(|dir| fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok())
            .min()
    });
    limits.min()
}

pub(super) fn read(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

pub(super) fn hostname() -> Option<String> {
    read("/proc/sys/kernel/hostname").filter(|name| !name.is_empty())
}

/// Total and free memory of the machine, in bytes.
pub(super) fn machine_memory() -> (Option<i64>, Option<i64>) {
    let text = read("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace()
            .next()?
            .parse::<i64>()
            .ok()
            .map(|kib| kib * 1024)
    };
    (field("MemTotal:"), field("MemAvailable:"))
}

/// Measures processor use between two calls.
#[derive(Default)]
pub(super) struct CpuMeter {
    before: Option<(u64, u64)>,
}

impl CpuMeter {
    /// Share of all processors in use since the last call, in percent; none at the first.
    pub fn percent(&mut self) -> Option<f64> {
        let text = read("/proc/stat")?;
        let ticks: Vec<u64> = text
            .lines()
            .next()?
            .split_whitespace()
            .skip(1)
            .filter_map(|t| t.parse().ok())
            .collect();
        let total: u64 = ticks.iter().take(8).sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        let (total_before, idle_before) = self.before.replace((total, idle))?;
        let passed = total.checked_sub(total_before).filter(|p| *p > 0)?;
        let idle = idle.saturating_sub(idle_before);
        #[expect(
            clippy::cast_precision_loss,
            reason = "ticks between two reads are few"
        )]
        let share = 100.0 * (1.0 - idle as f64 / passed as f64);
        Some(share.clamp(0.0, 100.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_above_counts() {
        let root = tempfile::tempdir().expect("temp dir");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        };
        assert_eq!(of_group(root.path(), "0::/pods/a"), None);
        write("pods/a/memory.max", "max\n");
        assert_eq!(of_group(root.path(), "0::/pods/a"), None);
        write("pods/memory.max", "1000\n");
        assert_eq!(of_group(root.path(), "0::/pods/a"), Some(1000));
        write("pods/a/memory.max", "500\n");
        assert_eq!(of_group(root.path(), "0::/pods/a"), Some(500));
        // A control group namespace: the path is the root's, whatever it is called outside.
        write("memory.max", "700\n");
        assert_eq!(of_group(root.path(), "0::/"), Some(700));
        // Version 1.
        write("memory/x/memory.limit_in_bytes", "300\n");
        let groups = "5:cpu,cpuacct:/x\n4:memory:/x\n";
        assert_eq!(of_group(root.path(), groups), Some(300));
    }

    #[test]
    fn compiling_has_half_of_what_is_left_within_bounds() {
        let mebibytes = |total: Option<u64>, workloads: Option<u64>| {
            for_compiling(total.map(|t| t << 20), workloads.map(|w| w << 20)) >> 20
        };
        assert_eq!(mebibytes(None, None), 1024);
        assert_eq!(mebibytes(Some(65_536), None), 1024);
        assert_eq!(mebibytes(Some(2048), None), 960);
        assert_eq!(mebibytes(Some(1024), None), 448);
        assert_eq!(mebibytes(Some(256), None), 128);
        assert_eq!(mebibytes(Some(1024), Some(640)), 256);
        assert_eq!(mebibytes(Some(1024), Some(2048)), 128);
    }

    #[test]
    fn memory_is_a_quantity() {
        let shown = |text: &str| text.parse::<Memory>().map(|m| m.to_string());
        assert_eq!(shown("1Gi"), Ok("1048576Ki".to_owned()));
        assert_eq!(shown("1000"), Ok("1000".to_owned()));
        let error = shown("12 GB").expect_err("no quantity");
        assert!(error.to_string().contains("64Mi"), "{error}");
    }
}
