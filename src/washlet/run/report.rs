//! What `washlet run` prints: plain lines, one for each thing that a person would want to know; on a terminal, a live table in
//! place of those that say how a workload is.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::SystemTime,
};

use super::{
    manifest::{Loaded, ManifestError},
    screen::Screen,
    table::{self, Row, State},
};
use crate::{
    fault::Stage,
    host::observed::{Observed, Progress},
    plugin::wasi_http::HttpSnapshot,
    spec::{self, WorkloadId},
};

/// Digits of a digest in the table.
const SHORT: usize = 8;

/// Prints, and remembers what it printed, so that nothing is said twice.
pub(super) struct Report {
    addr: SocketAddr,
    screen: Option<Screen>,
    said: HashMap<WorkloadId, String>,
    routes: HashMap<WorkloadId, Vec<String>>,
    /// Where each answers, by its first route.
    urls: HashMap<WorkloadId, String>,
    /// What the table shows, by id.
    rows: BTreeMap<WorkloadId, Observed>,
    skipped: Vec<String>,
    broken: Option<ManifestError>,
}

impl Report {
    pub fn new(addr: SocketAddr, https: Option<SocketAddr>, screen: Option<Screen>) -> Self {
        let report = Self {
            addr,
            screen,
            said: HashMap::new(),
            routes: HashMap::new(),
            urls: HashMap::new(),
            rows: BTreeMap::new(),
            skipped: Vec::new(),
            broken: None,
        };
        report.say(&format!("listening on http://{addr}"));
        if let Some(https) = https {
            report.say(&format!("listening on https://{https}"));
        }
        report
    }

    /// The files were read.
    pub fn loaded(&mut self, loaded: &Loaded) {
        self.broken = None;
        self.routes = loaded
            .workloads
            .iter()
            .map(|(id, w)| (id.clone(), self.routes_of(w)))
            .collect();
        self.urls = loaded
            .workloads
            .iter()
            .filter_map(|(id, w)| Some((id.clone(), self.url_of(w)?)))
            .collect();
        if self.skipped != loaded.skipped {
            self.skipped.clone_from(&loaded.skipped);
            for skipped in &self.skipped {
                self.say(&format!(
                    "skipped: {skipped} means nothing without a cluster"
                ));
            }
        }
    }

    /// The files were read, and are wrong. What is wrong with them is said once.
    pub fn broken(&mut self, error: &ManifestError) {
        if self.broken.as_ref() == Some(error) {
            return;
        }
        self.say("what was running goes on; the files are wrong:");
        for problem in &error.0 {
            self.say(&format!("  {problem}"));
        }
        self.broken = Some(error.clone());
    }

    /// A workload changed.
    pub fn observed(&mut self, id: &WorkloadId, observed: Option<Observed>) {
        // A workload that has stopped is forgotten a moment later, which may be before or after this look.
        let Some(observed) = observed.filter(|o| o.progress != Progress::Stopped) else {
            self.rows.remove(id);
            if self.said.remove(id).is_some() {
                self.say(&format!("{id}: stopped"));
            }
            return;
        };
        let line = self.line(id, &observed);
        let shown = self.screen.is_some() && observed.progress == Progress::Running;
        if self.screen.is_some() {
            self.rows.insert(id.clone(), observed);
        }
        if let Some(line) = line
            && self.said.get(id) != Some(&line)
        {
            if !shown {
                self.say(&line);
            }
            self.said.insert(id.clone(), line);
        }
    }

    /// Brings the table up to date, if there is one.
    pub fn draw(&self, counts: impl Fn(&str) -> Option<HttpSnapshot>) {
        let Some(screen) = &self.screen else { return };
        let now = SystemTime::now();
        let rows: Vec<Row> = self
            .rows
            .iter()
            .map(|(id, observed)| self.row(id, observed, counts(id).unwrap_or_default(), now))
            .collect();
        screen.draw(|canvas| table::render(&rows, canvas));
    }

    fn row(&self, id: &str, observed: &Observed, counts: HttpSnapshot, now: SystemTime) -> Row {
        let state = match &observed.progress {
            Progress::Running | Progress::Stopped => State::Running,
            Progress::Completed => State::Working("completed"),
            Progress::Draining => State::Working("stopping"),
            Progress::Working(stage) => State::Working(match stage {
                Stage::Fetch => "fetching",
                Stage::Compile => "compiling",
                _ => "starting",
            }),
            Progress::Failed { fault, .. } => {
                State::Failed(fault.reason.as_str().to_owned(), observed.serving.is_some())
            }
        };
        let digests = observed.components.iter().filter_map(|c| c.digest.as_ref());
        let short = digests.map(|d| d.hex().get(..SHORT).unwrap_or_default());
        let since = observed.serving.as_ref().map(|serving| serving.since);
        Row {
            name: id.to_owned(),
            state,
            digest: short.collect::<Vec<_>>().join(" "),
            requests: counts.requests,
            failures: counts.trapped
                + counts.out_of_memory
                + counts.out_of_time
                + counts.unanswered
                + counts.rejected,
            age: since.and_then(|since| now.duration_since(since).ok()),
            url: self.urls.get(id).cloned().unwrap_or_default(),
        }
    }

    pub fn draining(&self) {
        self.say("stopping: requests in flight may finish; again to stop at once");
    }

    /// Standard output is this command's interface. A closed one is no reason to stop serving.
    fn say(&self, line: &str) {
        use std::io::Write as _;
        match &self.screen {
            Some(screen) => screen.above(line),
            None => drop(writeln!(std::io::stdout(), "{line}")),
        }
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
            Progress::Completed => Some(format!("{id}: completed")),
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

    /// Where a workload answers, if a browser or a command can ask there.
    fn url_of(&self, workload: &spec::Workload) -> Option<String> {
        let entry = workload.interfaces.iter().find(|i| i.is("wasi", "http"))?;
        let path = entry.config.get("path").map_or("/", String::as_str);
        let host = entry.config.get("host").map(|host| format!(" ({host})"));
        Some(format!(
            "http://{}{path}{}",
            self.addr,
            host.unwrap_or_default()
        ))
    }
}
