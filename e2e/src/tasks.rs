//! What Linux says of a process's threads.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// A thread of a process.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thread {
    /// Processor time that it has used, in ticks of the system's.
    pub used: i64,
    /// How low its priority is, up to 19.
    pub nice: i64,
    /// Its name.
    pub name: String,
}

/// The thread of a process that has used most processor time.
///
/// # Errors
/// When there is no such process, or what the system says of it is not understood.
pub fn busiest(process: u32) -> Result<Thread> {
    threads(process)?.into_iter().max().context("no thread")
}

/// The threads of a process.
///
/// # Errors
/// As of [`busiest`].
pub fn threads(process: u32) -> Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(tasks(process))? {
        // One that has ended meanwhile was not the busiest.
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else {
            continue;
        };
        // Its name is in parentheses, and may have any in it.
        let (head, rest) = stat.rsplit_once(')').context("no name")?;
        let (_, name) = head.split_once('(').context("no name")?;
        // The first after the name is the field 3; user and system time are 14 and 15, the niceness is 19.
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| -> Result<i64> {
            Ok(fields.get(number - 3).context("too few fields")?.parse()?)
        };
        threads.push(Thread {
            used: field(14)? + field(15)?,
            nice: field(19)?,
            name: name.to_owned(),
        });
    }
    Ok(threads)
}

/// The processes that a process has started, by their ids.
///
/// # Errors
/// When there is no such process.
pub fn children(process: u32) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(tasks(process))? {
        // A thread may have ended meanwhile.
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        let ids = children.split_whitespace();
        found.extend(ids.filter_map(|id| id.parse::<i32>().ok()));
    }
    Ok(found)
}

fn tasks(process: u32) -> PathBuf {
    Path::new("/proc").join(process.to_string()).join("task")
}
