//! What `washlet run` prints: plain lines, one for each thing that a person would want to know.

use std::{collections::HashMap, net::SocketAddr};

use super::manifest::{Loaded, ManifestError};
use crate::{
    host::observed::{Observed, Progress},
    spec::{self, WorkloadId},
};

/// Prints, and remembers what it printed, so that nothing is said twice.
pub(super) struct Report {
    addr: SocketAddr,
    said: HashMap<WorkloadId, String>,
    routes: HashMap<WorkloadId, Vec<String>>,
    skipped: Vec<String>,
}

impl Report {
    pub fn new(addr: SocketAddr) -> Self {
        say(&format!("listening on http://{addr}"));
        Self {
            addr,
            said: HashMap::new(),
            routes: HashMap::new(),
            skipped: Vec::new(),
        }
    }

    /// The files were read.
    pub fn loaded(&mut self, loaded: &Loaded) {
        self.routes = loaded
            .workloads
            .iter()
            .map(|(id, w)| (id.clone(), self.routes_of(w)))
            .collect();
        if self.skipped != loaded.skipped {
            self.skipped.clone_from(&loaded.skipped);
            for skipped in &self.skipped {
                say(&format!(
                    "skipped: {skipped} means nothing without a cluster"
                ));
            }
        }
    }

    /// The files were read, and are wrong.
    pub fn broken(&mut self, error: &ManifestError) {
        say("what was running goes on; the files are wrong:");
        for problem in &error.0 {
            say(&format!("  {problem}"));
        }
    }

    /// A workload changed.
    pub fn observed(&mut self, id: &WorkloadId, observed: Option<Observed>) {
        // A workload that has stopped is forgotten a moment later, which may be before or after this look.
        let Some(observed) = observed.filter(|o| o.progress != Progress::Stopped) else {
            if self.said.remove(id).is_some() {
                say(&format!("{id}: stopped"));
            }
            return;
        };
        let Some(line) = self.line(id, &observed) else {
            return;
        };
        if self.said.get(id) != Some(&line) {
            say(&line);
            self.said.insert(id.clone(), line);
        }
    }

    pub fn draining(&self) {
        say("stopping: requests in flight may finish; again to stop at once");
    }

    fn line(&self, id: &WorkloadId, observed: &Observed) -> Option<String> {
        match &observed.progress {
            Progress::Running => {
                let since = observed.timings.assigned.zip(observed.timings.started);
                let took = since.and_then(|(a, s)| s.duration_since(a).ok());
                let took = took
                    .map(|t| format!(" ({:.1} ms)", t.as_secs_f64() * 1000.0))
                    .unwrap_or_default();
                let routes = self.routes.get(id).map(|r| r.join(" ")).unwrap_or_default();
                Some(
                    format!("{id}: running{took} {routes}")
                        .trim_end()
                        .to_owned(),
                )
            }
            Progress::Failed { fault, .. } => {
                let former = if observed.serving.is_some() {
                    "; the former version goes on"
                } else {
                    ""
                };
                Some(format!("{id}: {}: {}{former}", fault.reason, fault.message))
            }
            Progress::Draining => Some(format!("{id}: stopping")),
            Progress::Working(_) | Progress::Stopped => None,
        }
    }

    /// How to reach a workload, as commands to paste.
    fn routes_of(&self, workload: &spec::Workload) -> Vec<String> {
        let entries = workload.interfaces.iter().filter(|i| i.is("wasi", "http"));
        entries
            .map(|entry| {
                let path = entry.config.get("path").map_or("/", String::as_str);
                let host = entry
                    .config
                    .get("host")
                    .map(|h| format!(" -H 'Host: {}'", h.replacen('*', "any", 1)));
                format!(
                    "curl http://{}{path}{}",
                    self.addr,
                    host.unwrap_or_default()
                )
            })
            .collect()
    }
}

/// Standard output is this command's interface. A closed one is no reason to stop serving.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}
