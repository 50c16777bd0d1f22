//! `washlet run` as a process: workloads without a cluster, which is the quickest way to look at what components can do.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use washlet_e2e::{agent::binary, eventually, process::Process, repository, run_dir};

use crate::stage::START;

/// What does not begin or end by then, hangs.
const LIMIT: Duration = Duration::from_secs(45);

/// A running `washlet run`. Dropping it kills it.
pub struct Local {
    pub process: Process,
    pub address: SocketAddr,
    client: reqwest::Client,
}

// === impl Local ===

impl Local {
    /// Runs these workloads and other objects.
    pub async fn of(objects: &[Value]) -> Result<Self> {
        let file = folder("run")?.join("workloads.yaml");
        fs::write(&file, yaml(objects)).context("writing YAML")?;
        Self::start(&[path(&file)?]).await
    }

    /// Runs it with these arguments, on a port of its own choice.
    pub async fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command
            .args(["run", "--http-listen=127.0.0.1:0", "--log-format=json"])
            .args(arguments);
        Self::spawn(command).await
    }

    /// Starts a command that is `washlet run` in the end.
    pub async fn spawn(command: Command) -> Result<Self> {
        Self::spawn_into(command, &folder("run-log")?.join("log")).await
    }

    /// The same with its output in this file, or what a test writes there in its place.
    pub async fn spawn_into(command: Command, log: &Path) -> Result<Self> {
        let mut process = Process::spawn("washlet run", command, log)?;
        let address = eventually("it tells where it listens", LIMIT, async || {
            let said = fs::read_to_string(log).context("reading its output")?;
            let whole = said
                .split_inclusive('\n')
                .filter_map(|line| line.strip_suffix('\n'));
            // A terminal is told what to clear before it.
            let mut told = whole.filter_map(|line| line.split_once("listening on http://"));
            let address = told.next().map(|(_, address)| address.trim_end());
            if let Some(address) = address {
                return Ok(Ok(address.parse().context("no address")?));
            }
            process.check_running()?;
            Ok(Err(said))
        })
        .await?;
        washlet_e2e::tls::use_ring();
        let client = reqwest::Client::builder().no_proxy().timeout(LIMIT);
        Ok(Self {
            process,
            address,
            client: client.build()?,
        })
    }

    /// All that it has printed and logged.
    pub fn said(&self) -> Result<String> {
        fs::read_to_string(self.process.log()).context("reading its output")
    }

    /// Waits until it has printed or logged this.
    pub async fn says(&self, text: &str) -> Result<()> {
        eventually(&format!("it says `{text}`"), LIMIT, async || {
            let said = self.said()?;
            Ok(if said.contains(text) {
                Ok(())
            } else {
                Err(said)
            })
        })
        .await
    }

    /// Sends a GET, and gives the response's head; its body can be read in pieces.
    pub async fn send(&self, host: &str, path: &str) -> Result<reqwest::Response> {
        let request = self.client.get(format!("http://{}{path}", self.address));
        request
            .header("host", host)
            .send()
            .await
            .with_context(|| format!("asking for {host}{path}"))
    }

    /// Gets a path of a workload: the status and the text of the answer.
    pub async fn get(&self, host: &str, path: &str) -> Result<(u16, String)> {
        let response = self.send(host, path).await?;
        let status = response.status().as_u16();
        Ok((status, response.text().await.context("half an answer")?))
    }

    /// Waits until a path answers just this with status 200.
    pub async fn answers(&self, host: &str, path: &str, body: &str) -> Result<()> {
        eventually(&format!("`{body}` from {host}{path}"), START, async || {
            let got = self.get(host, path).await?;
            Ok(if got.0 == 200 && got.1 == body {
                Ok(())
            } else {
                Err((got, self.process.log_tail(12)))
            })
        })
        .await
    }

    /// Waits until all these workloads answer their host name.
    pub async fn ready(&self, names: &[&str]) -> Result<()> {
        for name in names {
            self.says(&format!("default/{name}: running")).await?;
        }
        Ok(())
    }

    /// Fails unless a path answers just this, now.
    pub async fn expect(&self, host: &str, path: &str, wanted: (u16, &str)) -> Result<()> {
        let got = self.get(host, path).await?;
        ensure!(
            (got.0, got.1.as_str()) == wanted,
            "{host}{path}: {got:?}, not {wanted:?}"
        );
        Ok(())
    }
}

/// Runs `washlet` to its end, which should come soon: exit code, and what it said on standard error.
pub async fn ends(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(binary()?);
    command.args(arguments).env_remove("KUBECONFIG");
    let run = move || washlet_e2e::process::run(command, LIMIT);
    let output = tokio::task::spawn_blocking(run).await??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code(), said))
}

/// A new folder.
pub fn folder(label: &str) -> Result<PathBuf> {
    run_dir::subdir(label)
}

/// A path as text.
pub fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no UTF-8")
}

/// A file with these objects.
pub fn yaml(objects: &[Value]) -> String {
    // JSON is YAML.
    let documents: Vec<String> = objects.iter().map(ToString::to_string).collect();
    documents.join("\n---\n")
}

/// Where a guest is.
pub fn wasm(guest: &str) -> PathBuf {
    repository().join(format!("e2e/guests/wasm/{guest}.wasm"))
}

/// A workload of one guest, called `app`, at the host name `NAME.test`; `component` is what else its component has.
pub fn workload(name: &str, guest: &str, component: Value) -> Value {
    let mut app = json!({"name": "app", "image": format!("file:{}", wasm(guest).display())});
    if let (Some(app), Value::Object(more)) = (app.as_object_mut(), component) {
        app.extend(more);
    }
    json!({
        "apiVersion": "runtime.wasmcloud.dev/v1alpha1", "kind": "Workload", "metadata": {"name": name},
        "spec": {"components": [app], "hostInterfaces": [
            {"namespace": "wasi", "package": "http", "interfaces": ["incoming-handler"],
                "config": {"host": format!("{name}.test")}},
        ]},
    })
}
