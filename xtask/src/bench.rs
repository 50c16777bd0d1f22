//! `cargo xtask bench`: builds what is compared, measures, and prints one table.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cargo::{self, cargo};

/// The peer, from its published crate.
const WASMTIME: &str = "48.0.8";

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Only these figures, for example `P1,P9,P13`.
    #[arg(long, value_delimiter = ',')]
    figures: Vec<String>,
    /// Rounds of each figure, which is a median over them; at least 1.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each round of the figures of one process.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Workloads on the agent, in place of 5,000 and 1,000, to try things out.
    #[arg(long)]
    workloads: Option<usize>,
    /// Where the figures go as JSON, a line for each.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Do not build and compare with `wasmtime serve`.
    #[arg(long)]
    no_wasmtime: bool,
}

/// The figures that take a cluster.
const OF_THE_CLUSTER: [&str; 5] = ["P6", "P7", "P8", "P13", "P14"];

/// Measures. What could not be measured is an error, after all else was.
pub fn run(args: &Args) -> Result<()> {
    cargo::run(cargo(&["build", "--release", "--workspace", "--bins"]))?;
    let release = release_dir()?;
    let washlet = release.join("washlet");
    let is_of_cluster = |name: &&String| OF_THE_CLUSTER.contains(&name.as_str());
    let (cluster, process): (Vec<_>, Vec<_>) = args.figures.iter().partition(is_of_cluster);
    let mut commands = Vec::new();
    if args.figures.is_empty() || !process.is_empty() {
        let mut command = Command::new(release.join("washlet-bench"));
        command.arg("run").arg("--washlet").arg(&washlet);
        command.args(["--rounds", &args.rounds.to_string()]);
        command.args(["--seconds", &args.seconds.to_string()]);
        if !args.no_wasmtime {
            command.arg("--wasmtime").arg(wasmtime()?);
        }
        commands.push(only(command, &process));
    }
    if args.figures.is_empty() || !cluster.is_empty() {
        let mut install = Command::new(release.join("washlet-playground"));
        install.arg("install");
        cargo::run(install)?;
        let mut command = Command::new(release.join("washlet-bench-cluster"));
        command.arg("--washlet").arg(&washlet);
        command.args(["--rounds", &args.rounds.to_string()]);
        if let Some(workloads) = args.workloads {
            command.args(["--workloads", &workloads.to_string()]);
        }
        commands.push(only(command, &cluster));
    }
    let mut lines = String::new();
    let mut failed = Vec::new();
    for command in commands {
        lines += &measure(command, &mut failed)?;
    }
    let json = crate::root().join(&args.json);
    fs::write(&json, &lines).with_context(|| format!("writing {}", json.display()))?;
    print!("{}", table(&lines)?);
    if failed.is_empty() {
        return Ok(());
    }
    bail!("not everything was measured: {}", failed.join(", "))
}

fn only(mut command: Command, figures: &[&String]) -> Command {
    if !figures.is_empty() {
        let names: Vec<&str> = figures.iter().map(|name| name.as_str()).collect();
        command.args(["--figures", &names.join(",")]);
    }
    command
        .current_dir(crate::root())
        .env("RUST_BACKTRACE", "0");
    command
}

/// What a program measured, even if it failed in the end.
fn measure(mut command: Command, failed: &mut Vec<String>) -> Result<String> {
    let shown = cargo::shown(&command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting {shown}"))?;
    if !output.status.success() {
        failed.push(shown);
    }
    String::from_utf8(output.stdout).context("figures are text")
}

/// Where release builds are: beside the folder that this program is in.
fn release_dir() -> Result<PathBuf> {
    let here = cargo::built("x")?;
    let target = here.parent().and_then(Path::parent);
    Ok(target
        .context("this program is in no target folder")?
        .join("release"))
}

/// `wasmtime`, built once.
fn wasmtime() -> Result<PathBuf> {
    let root = cargo::cache()?.join(format!("wasmtime-{WASMTIME}"));
    let binary = root.join("bin/wasmtime");
    if !binary.is_file() {
        eprintln!("installing wasmtime-cli {WASMTIME} (once; some ten minutes)");
        let mut install = cargo(&["install", "--quiet", "--locked", "--version", WASMTIME]);
        install.args(["wasmtime-cli", "--root"]).arg(&root);
        install.env_remove("CARGO_TARGET_DIR");
        cargo::run(install)?;
    }
    Ok(binary)
}

/// The figures as a table of Markdown.
fn table(lines: &str) -> Result<String> {
    let mut table = String::from(
        "| # | figure | value | target | washlet | peer or limit | unit |\n|---|---|---|---|---|---|---|\n",
    );
    for line in lines.lines() {
        let figure: Value =
            serde_json::from_str(line).with_context(|| format!("not a figure: {line}"))?;
        let text = |key: &str| figure.get(key).and_then(Value::as_str).unwrap_or_default();
        let number = |key: &str| {
            figure
                .get(key)
                .and_then(Value::as_f64)
                .map_or(String::new(), short)
        };
        let at_least = figure
            .get("more_is_better")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let target = match number("target") {
            none if none.is_empty() => none,
            target => format!("{} {target}", if at_least { "≥" } else { "≤" }),
        };
        let _ = writeln!(
            table,
            "| {} | {} | {} | {target} | {} | {} | {} |",
            text("figure"),
            text("note"),
            number("value"),
            number("ours"),
            number("peer"),
            text("unit"),
        );
    }
    Ok(table)
}

/// Three digits that say something.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        v if v >= 0.01 => format!("{value:.3}"),
        _ => format!("{value:.5}"),
    }
}
