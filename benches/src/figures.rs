//! All figures, in groups that share their servers.

mod cache;
mod calls;
mod cores;
mod neighbours;
mod requests;
mod routes;

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Result, bail};

use crate::{Options, server};

/// A group of figures.
struct Group {
    figures: &'static [&'static str],
    run: fn(&Bench<'_>) -> Result<()>,
}

const GROUPS: [Group; 7] = [
    Group {
        figures: &["P1", "P2", "P3", "P4"],
        run: requests::hello,
    },
    Group {
        figures: &["P5"],
        run: requests::echo,
    },
    Group {
        figures: &["P9"],
        run: routes::many,
    },
    Group {
        figures: &["P10"],
        run: cache::load,
    },
    Group {
        figures: &["P11"],
        run: calls::composed,
    },
    Group {
        figures: &["P12"],
        run: neighbours::beside,
    },
    Group {
        figures: &["cores"],
        run: cores::two,
    },
];

/// What all groups need.
pub struct Bench<'a> {
    pub options: &'a Options,
}

/// Measures what was asked for. A group that fails is told, and the others are measured all the same.
pub fn run(options: &Options) -> Result<()> {
    let known = |name: &String| GROUPS.iter().any(|g| g.figures.contains(&name.as_str()));
    if let Some(unknown) = options.figures.iter().find(|name| !known(name)) {
        let all: Vec<_> = GROUPS.iter().flat_map(|g| g.figures).copied().collect();
        bail!("--figures {unknown}: there are {}", all.join(", "));
    }
    server::pin_load()?;
    let bench = Bench { options };
    let mut failed = String::new();
    for group in GROUPS.iter().filter(|group| bench.wants(group.figures)) {
        eprintln!("measuring {}", group.figures.join(", "));
        if let Err(error) = (group.run)(&bench) {
            let _ = write!(failed, "\n  {}: {error:#}", group.figures.join(", "));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("not measured:{failed}")
}

impl Bench<'_> {
    /// Whether any of these was asked for; all are, if none is.
    pub fn wants(&self, figures: &[&str]) -> bool {
        let asked = &self.options.figures;
        asked.is_empty() || asked.iter().any(|name| figures.contains(&name.as_str()))
    }

    /// Rounds for a p99, and the seconds of each: `parts` times as many, of the same time in all. What keeps the machine from work
    /// for some milliseconds so spoils some of the rounds, and not their median.
    pub fn short_rounds(&self, parts: u8) -> (usize, f64) {
        let Options {
            rounds, seconds, ..
        } = self.options;
        (rounds * usize::from(parts), seconds / f64::from(parts))
    }

    /// A guest of the end-to-end tests.
    pub fn guest(&self, name: &str) -> PathBuf {
        self.options
            .root
            .join(format!("e2e/guests/wasm/{name}.wasm"))
    }

    /// The example's component.
    pub fn hello(&self) -> PathBuf {
        self.options.root.join("examples/hello/hello.wasm")
    }
}

/// A Workload with one HTTP component in `app.wasm`; `fields` are further lines of the component.
pub fn workload(name: &str, host: Option<&str>, fields: &str) -> String {
    let fields: String = fields.lines().fold(String::new(), |mut all, line| {
        let _ = writeln!(all, "      {line}");
        all
    });
    let config = host.map_or(String::new(), |host| {
        format!("      config: {{host: \"{host}\"}}\n")
    });
    format!(
        "apiVersion: runtime.wasmcloud.dev/v1alpha1\n\
         kind: Workload\n\
         metadata: {{name: {name}}}\n\
         spec:\n  \
           components:\n    \
             - name: app\n      \
               image: file:./app.wasm\n\
         {fields}  \
           hostInterfaces:\n    \
             - namespace: wasi\n      \
               package: http\n      \
               interfaces: [incoming-handler]\n\
         {config}---\n"
    )
}
