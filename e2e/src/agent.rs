//! `washlet agent` as a process, with exactly the rights that the project ships.

mod client;
mod identity;
pub(crate) mod rbac;
mod start;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

pub use client::client;
pub use identity::Identity;
pub(crate) use identity::{Account, ensure_node, write_kubeconfig};
pub use start::binary;

use rbac::Rbac;
use start::{Addresses, Start};

use crate::{namespace::TestNamespace, process::Process, run_dir, tls, wait::eventually};

/// Longer than an agent may take to drain.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// How an agent is started; the default fits a test that has one agent and one namespace.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// The Node to be; by default one called after the test's namespace. It is created if it is not there.
    pub node: Option<String>,
    /// The namespaces to watch; by default the test's own. Empty text in it watches all.
    pub namespaces: Option<Vec<String>>,
    /// The loopback address that it listens on; by default 127.0.0.1. Agents that serve one Service need one each.
    pub listen: Option<Ipv4Addr>,
    /// Folders in the layout of `certs.d`, all of which the agent is given.
    pub certs_d: Vec<PathBuf>,
    /// What its token is bound to.
    pub identity: Identity,
    /// A manifest of rights in place of the shipped ones; its ServiceAccount is `washlet-agent` too.
    pub rights: Option<String>,
    /// The state of an earlier agent; by default a new folder.
    pub state_dir: Option<PathBuf>,
    /// The binary, in place of [`binary`].
    pub binary: Option<PathBuf>,
    /// Further arguments.
    pub args: Vec<String>,
    /// Further environment.
    pub env: Vec<(String, String)>,
}

/// A running agent. Dropping it kills it; its log is printed when the test fails.
pub struct Agent {
    process: Process,
    start: Start,
    addresses: Addresses,
}

// === impl Agent ===

impl Agent {
    /// Starts an agent for the Workloads of a test and waits until it listens, not until it is ready.
    ///
    /// # Errors
    /// When there is no binary, its rights can't be set up, or it ends early.
    pub async fn start(namespace: &TestNamespace, options: AgentOptions) -> Result<Self> {
        let dir = run_dir::subdir(&format!("agent-{}", namespace.name()))?;
        let node = options.node.unwrap_or_else(|| namespace.name().to_owned());
        let kubeconfig = dir.join("kubeconfig");
        if ensure_node(namespace.client(), &node).await? {
            namespace.remove_too(format!("node/{node}"));
        }
        let rbac = match &options.rights {
            Some(manifest) => Rbac::given(namespace.name(), manifest, "agent")?,
            None => Rbac::moved_to(namespace.name())?,
        };
        rbac.apply(namespace.client())
            .await?
            .into_iter()
            .for_each(|object| namespace.remove_too(object));
        let account = Account {
            namespace: namespace.name(),
            name: &rbac.account,
        };
        write_kubeconfig(
            namespace.cluster(),
            &account,
            &node,
            options.identity,
            &kubeconfig,
        )
        .await?;

        let state_dir = options.state_dir.unwrap_or_else(|| dir.join("state"));
        fs::create_dir_all(&state_dir).context("making a state directory")?;
        let mut args = vec![
            format!("--node-name={node}"),
            format!("--system-namespace={}", namespace.name()),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--state-dir={}", state_dir.display()),
            format!(
                "--http-listen={}:0",
                options.listen.unwrap_or(Ipv4Addr::LOCALHOST)
            ),
            "--admin-listen=127.0.0.1:0".to_owned(),
            "--log-format=json".to_owned(),
        ];
        let watched = options
            .namespaces
            .unwrap_or_else(|| vec![namespace.name().to_owned()]);
        args.extend(
            watched
                .iter()
                .filter(|name| !name.is_empty())
                .map(|name| format!("--namespace={name}")),
        );
        if !options.certs_d.is_empty() {
            let certs_d = dir.join("certs.d");
            for from in &options.certs_d {
                copy_tree(from, &certs_d)?;
            }
            args.push(format!("--registry-certs-dir={}", certs_d.display()));
        }
        // What a test says itself counts.
        let flag = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
        args.retain(|default| options.args.iter().all(|own| flag(own) != flag(default)));
        args.extend(options.args);

        let log = dir.join("agent.log");
        namespace.print_on_failure(log.clone());
        let start = Start {
            binary: options.binary.map_or_else(binary, Ok)?,
            node,
            args,
            env: options.env,
            state_dir,
            log,
        };
        let (process, addresses) = start.run().await?;
        Ok(Self {
            process,
            start,
            addresses,
        })
    }

    /// The Node that it is, which is its host id.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.start.node
    }

    /// Where it serves the workloads' HTTP.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.addresses.http
    }

    /// Where it serves `/livez`, `/readyz` and `/metrics`.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.addresses.admin
    }

    /// Its state directory.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.start.state_dir
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// All that it has logged, over its restarts.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.start.log).context("reading the agent's log")
    }

    /// Gets a path of a workload that answers to `host`: the status and the text of the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, host: &str, path: &str) -> Result<(u16, String)> {
        let request = http_client()?.get(format!("http://{}{path}", self.http_addr()));
        answer(request.header("host", host)).await
    }

    /// Gets a path of the admin address: the status and the text of the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get_admin(&self, path: &str) -> Result<(u16, String)> {
        answer(http_client()?.get(format!("http://{}{path}", self.admin_addr()))).await
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// When there is no answer, or none with status 200.
    pub async fn metrics(&self) -> Result<String> {
        match self.get_admin("/metrics").await? {
            (200, text) => Ok(text),
            (status, text) => bail!("/metrics answers {status}: {text}"),
        }
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Errors
    /// When it does not in time, or the agent ends.
    pub async fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let url = format!("http://{}/readyz", self.admin_addr());
        let (client, process) = (http_client()?, &mut self.process);
        eventually("the agent is ready", limit, async || {
            process.check_running()?;
            Ok(match answer(client.get(&url)).await {
                Ok((200, _)) => Ok(()),
                other => Err(other),
            })
        })
        .await
    }

    /// SIGKILL: the agent has no chance to say goodbye.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// SIGTERM; gives the exit code once it has drained.
    ///
    /// # Errors
    /// When it does not end in time, or dies by a signal.
    pub async fn terminate(&mut self) -> Result<i32> {
        self.process.terminate(DRAIN_LIMIT).await
    }

    /// Its process, to send it signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Starts it again with the same arguments, token and state, after killing what still runs of it.
    ///
    /// Its addresses are new ones.
    ///
    /// # Errors
    /// When it ends early.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill9();
        (self.process, self.addresses) = self.start.run().await?;
        Ok(())
    }
}

fn http_client() -> Result<reqwest::Client> {
    tls::use_ring();
    reqwest::Client::builder()
        .timeout(REQUEST_LIMIT)
        .no_proxy()
        .build()
        .context("making an HTTP client")
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(u16, String)> {
    let response = request.send().await.context("asking the agent")?;
    let status = response.status().as_u16();
    Ok((
        status,
        response
            .text()
            .await
            .context("reading the agent's answer")?,
    ))
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in from
        .read_dir()
        .with_context(|| format!("reading {}", from.display()))?
    {
        let entry = entry.context("reading a folder")?;
        let target = to.join(entry.file_name());
        if entry.file_type().context("reading a folder")?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)
                .with_context(|| format!("writing {}", target.display()))?;
        }
    }
    Ok(())
}
