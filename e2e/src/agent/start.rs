//! Starting the agent's binary, once or again, and learning where it listens.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::{process::Process, repository, wait::eventually};

/// An agent listens before it has reached the API server.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The log line in which the agent tells where it listens, and its fields.
const LISTENING: (&str, &str, &str) = ("listening", "http", "admin");

/// All that it takes to start it again as it was.
pub(super) struct Start {
    pub(super) binary: PathBuf,
    pub(super) node: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) state_dir: PathBuf,
    pub(super) log: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) http: SocketAddr,
    pub(super) admin: SocketAddr,
}

// === impl Start ===

impl Start {
    pub(super) async fn run(&self) -> Result<(Process, Addresses)> {
        // An earlier run has told its own addresses in the same file.
        let skipped = fs::metadata(&self.log).map_or(0, |meta| meta.len());
        let mut command = Command::new(&self.binary);
        command
            .arg("agent")
            .args(&self.args)
            .envs(self.env.iter().map(|(key, value)| (key, value)));
        // A developer's own cluster is none of this agent's business.
        command
            .env_remove("KUBECONFIG")
            .env_remove("NODE_NAME")
            .env_remove("POD_NAMESPACE")
            .env_remove("POD_IPS");
        let mut process = Process::spawn("washlet agent", command, &self.log)?;
        let addresses = eventually(
            "the agent tells where it listens",
            START_LIMIT,
            async || {
                let log = fs::read(&self.log).context("reading the agent's log")?;
                let new = log
                    .get(usize::try_from(skipped).unwrap_or(0)..)
                    .unwrap_or_default();
                if let Some(addresses) = addresses(&String::from_utf8_lossy(new)) {
                    return Ok(Ok(addresses));
                }
                process.check_running()?;
                Ok(Err("no such line in its log"))
            },
        )
        .await
        .with_context(|| {
            format!(
                "starting an agent; the end of its log:\n{}",
                process.log_tail(20)
            )
        })?;
        Ok((process, addresses))
    }
}

/// The only place that knows how the agent tells its addresses: a line of its JSON log.
fn addresses(log: &str) -> Option<Addresses> {
    let (message, http, admin) = LISTENING;
    log.lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let fields = line.get("fields").unwrap_or(&line);
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let address = |name: &str| text(name)?.parse().ok();
        (text("message") == Some(message)).then_some(())?;
        Some(Addresses {
            http: address(http)?,
            admin: address(admin)?,
        })
    })
}

/// The binary under test: `WASHLET_BIN`, or the one beside this test's own binary.
///
/// # Errors
/// When it has not been built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WASHLET_BIN") {
        return Ok(PathBuf::from(path));
    }
    let here = std::env::current_exe().context("the path of this program")?;
    // target/debug/deps/e2e-1234 or target/debug/washlet-playground
    let candidates = here
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("washlet"));
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        anyhow!(
            "no `washlet` binary beside {}: `cargo build --bin washlet` makes one, `cargo xtask test` does so itself, \
             and WASHLET_BIN names another (the repository is {})",
            here.display(),
            repository().display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_line_that_says_listening() {
        let log = "not JSON\n{\"fields\":{\"message\":\"starting\",\"http\":\"x\"}}\n\
                   {\"fields\":{\"message\":\"listening\",\"http\":\"127.0.0.1:4000\",\"admin\":\"127.0.0.1:4001\"}}\n";
        let found = addresses(log).unwrap();
        assert_eq!((found.http.port(), found.admin.port()), (4000, 4001));
        assert_eq!(
            addresses("{\"message\":\"listening\",\"http\":\"127.0.0.1:1\"}"),
            None
        );
    }
}
