//! The figures that need a cluster: how the agent does with thousands of Workloads, beside a bare client that does nothing but
//! write their status.
//!
//! Everything runs on this machine: the API server and etcd take most of it, for the agent and for the bare client alike, so
//! only ratios mean something elsewhere.

mod figure;
mod idle;
mod memory;
mod peer;
mod restart;
mod scale;
mod scene;
mod start;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

pub use figure::Figure;

/// The figures that are measured here.
pub const FIGURES: [&str; 5] = ["P6", "P7", "P8", "P13", "P14"];

/// Rounds of each figure, which is the median over them.
pub const ROUNDS: usize = 5;

/// What to measure, and on what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The binary under test.
    pub washlet: PathBuf,
    /// Which of [`FIGURES`].
    pub figures: Vec<String>,
    /// Workloads, in place of the figures' own numbers.
    pub workloads: Option<usize>,
    /// Rounds of each figure, see [`ROUNDS`].
    pub rounds: usize,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// When an argument is unknown, has no value or a wrong one.
    pub fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            washlet: PathBuf::new(),
            figures: FIGURES.map(str::to_owned).to_vec(),
            workloads: None,
            rounds: ROUNDS,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} needs a value"))
            };
            let number = |text: &String| {
                let number = text.parse().ok().filter(|n| *n > 0);
                number.with_context(|| format!("{argument} {text}: no number above 0"))
            };
            match argument.as_str() {
                "--washlet" => options.washlet = value()?.into(),
                "--figures" => {
                    options.figures = value()?.split(',').map(str::to_owned).collect();
                }
                "--workloads" => options.workloads = Some(value().and_then(number)?),
                "--rounds" => options.rounds = value().and_then(number)?,
                other => bail!("{other} is no argument"),
            }
        }
        let known = |figure: &&String| !FIGURES.contains(&figure.as_str());
        if let Some(unknown) = options.figures.iter().find(known) {
            bail!("{unknown} is no figure; there are {}", FIGURES.join(", "));
        }
        ensure!(
            !options.washlet.as_os_str().is_empty(),
            "--washlet is not given"
        );
        Ok(options)
    }

    fn wants(&self, figures: &[&str]) -> bool {
        self.figures.iter().any(|f| figures.contains(&f.as_str()))
    }
}

/// Measures and prints.
///
/// # Errors
/// When something could not be measured. What was measured before has been printed.
pub async fn run(options: Options) -> Result<()> {
    let binary = &options.washlet;
    ensure!(binary.is_file(), "--washlet {}: no file", binary.display());
    let print = |figures: Vec<Figure>| {
        let wanted = figures.iter().filter(|f| options.wants(&[f.figure]));
        wanted.for_each(|figure| println!("{}", figure.line()));
    };
    if options.wants(&["P6"]) {
        print(start::measure(&options).await?);
    }
    if options.wants(&["P7", "P8"]) {
        print(scale::measure(&options).await?);
    }
    if options.wants(&["P13"]) {
        print(idle::measure(&options).await?);
    }
    if options.wants(&["P14"]) {
        print(restart::measure(&options).await?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Options::parse(&arguments)
    }

    #[test]
    fn the_command_line_says_what_to_measure() {
        let options = parse("--washlet x --figures P7,P8 --workloads 500").unwrap();
        assert!(options.wants(&["P8"]) && !options.wants(&["P6"]));
        assert_eq!((options.workloads, options.rounds), (Some(500), ROUNDS));
        assert_eq!(parse("--washlet x --rounds 1").unwrap().rounds, 1);
        assert_eq!(parse("--washlet x").unwrap().figures, FIGURES);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (line, why) in [
            ("--figures P7", "--washlet"),
            ("--washlet x --figures P1", "P1"),
            ("--washlet x --rounds 0", "--rounds"),
            ("--washlet x --rounds", "value"),
            ("--washlet x --round 1", "--round"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
