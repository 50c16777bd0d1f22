//! Runs named steps one after the other and tells how long each took.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// What became of a step that did not fail.
pub enum Outcome {
    /// It ran.
    Done,
    /// It could not run here, and nobody can change that by installing a toolchain.
    NotRun(String),
}

/// A step; its name is for `--skip`.
pub struct Step<C> {
    /// One word.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&C) -> Result<Outcome>,
}

/// Which steps to leave out, and whether to go on after a failure.
pub struct Plan {
    /// Names given to `--skip`.
    pub skip: BTreeSet<String>,
    /// Tell all failures, not only the first.
    pub keep_going: bool,
}

/// Runs the steps. The table of times is printed before the last one, which ends the output with its own summary.
pub fn run<C>(steps: &[Step<C>], plan: &Plan, context: &C) -> Result<()> {
    if let Some(unknown) = plan
        .skip
        .iter()
        .find(|name| steps.iter().all(|step| step.name != **name))
    {
        let names: Vec<_> = steps.iter().map(|step| step.name).collect();
        bail!(
            "--skip {unknown}: no such step; there are {}",
            names.join(", ")
        );
    }
    let last = steps
        .iter()
        .rposition(|step| !plan.skip.contains(step.name));
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        if plan.skip.contains(step.name) {
            lines.push(loud(&format!("{}: SKIPPED by --skip", step.name)));
            continue;
        }
        if Some(index) == last {
            print_summary(&lines);
        }
        eprintln!("\n==> {}", step.name);
        let started = Instant::now();
        let outcome = (step.run)(context);
        let took = seconds(started.elapsed());
        match outcome {
            Ok(Outcome::Done) => lines.push(format!("    {}: ok, {took}", step.name)),
            Ok(Outcome::NotRun(why)) => lines.push(loud(&format!("{}: NOT RUN: {why}", step.name))),
            Err(error) => {
                lines.push(loud(&format!(
                    "{}: FAILED after {took}: {error:#}",
                    step.name
                )));
                failed.push(step.name);
                if !plan.keep_going {
                    break;
                }
            }
        }
        if Some(index) != last
            && let Some(line) = lines.last()
        {
            eprintln!("{line}");
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    print_summary(&lines);
    bail!("failed: {}", failed.join(", "));
}

fn print_summary(lines: &[String]) {
    eprintln!("\n==> so far");
    lines.iter().for_each(|line| eprintln!("{line}"));
}

fn loud(text: &str) -> String {
    format!("!!! {text}")
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    type Seen = RefCell<Vec<&'static str>>;

    const STEPS: [Step<Seen>; 3] = [
        Step {
            name: "one",
            run: |seen| Ok(note(seen, "one")),
        },
        Step {
            name: "two",
            run: |_| bail!("broken"),
        },
        Step {
            name: "three",
            run: |seen| Ok(note(seen, "three")),
        },
    ];

    fn note(seen: &Seen, name: &'static str) -> Outcome {
        seen.borrow_mut().push(name);
        Outcome::Done
    }

    fn run_with(skip: &[&str], keep_going: bool) -> (Vec<&'static str>, Result<()>) {
        let seen = Seen::default();
        let plan = Plan {
            skip: skip.iter().map(|&name| name.to_owned()).collect(),
            keep_going,
        };
        let result = run(&STEPS, &plan, &seen);
        (seen.into_inner(), result)
    }

    #[test]
    fn the_first_failure_ends_the_run_unless_told_otherwise() {
        let (seen, result) = run_with(&[], false);
        assert!(seen == ["one"] && result.is_err());
        let (seen, result) = run_with(&[], true);
        assert!(seen == ["one", "three"] && result.is_err());
    }

    #[test]
    fn only_known_steps_are_skipped() {
        let (seen, result) = run_with(&["two"], false);
        assert!(seen == ["one", "three"] && result.is_ok());
        let (seen, result) = run_with(&["four"], false);
        assert!(seen.is_empty() && result.unwrap_err().to_string().contains("one, two, three"));
    }
}
