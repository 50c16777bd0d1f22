//! `washlet controller` as a process, with exactly the rights that the project ships.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    agent::{Account, Identity, binary, rbac::Rbac, write_kubeconfig},
    namespace::TestNamespace,
    process::Process,
    run_dir, tls,
    wait::eventually,
};

/// It releases its Lease within this time.
const END_LIMIT: Duration = Duration::from_secs(20);
/// It listens before it has reached the API server.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How a controller is started; the default fits a test that has one namespace.
#[derive(Clone, Debug, Default)]
pub struct ControllerOptions {
    /// The namespaces to watch; by default the test's own.
    pub namespaces: Option<Vec<String>>,
    /// A manifest of rights in place of the shipped ones; its ServiceAccount is `washlet-controller` too.
    pub rights: Option<String>,
}

/// A running controller. Dropping it kills it; its log is printed when the test fails.
pub struct Controller {
    process: Process,
    admin: SocketAddr,
    log: PathBuf,
}

// === impl Controller ===

impl Controller {
    /// Starts a controller for the Workloads of a test, with its Lease in the test's namespace. Several may be started.
    ///
    /// # Errors
    /// When there is no binary, its rights can't be set up, or it ends early.
    pub async fn start(namespace: &TestNamespace) -> Result<Self> {
        Self::start_with(namespace, ControllerOptions::default()).await
    }

    /// The same, with options.
    ///
    /// # Errors
    /// As [`Controller::start`].
    pub async fn start_with(namespace: &TestNamespace, options: ControllerOptions) -> Result<Self> {
        let dir = run_dir::subdir(&format!("controller-{}", namespace.name()))?;
        let rbac = match &options.rights {
            Some(manifest) => Rbac::given(namespace.name(), manifest, "controller")?,
            None => Rbac::controller_moved_to(namespace.name())?,
        };
        rbac.apply(namespace.client())
            .await?
            .into_iter()
            .for_each(|object| namespace.remove_too(object));
        let account = Account {
            namespace: namespace.name(),
            name: &rbac.account,
        };
        let kubeconfig = dir.join("kubeconfig");
        // A controller needs no node.
        write_kubeconfig(
            namespace.cluster(),
            &account,
            "",
            Identity::Unbound,
            &kubeconfig,
        )
        .await?;
        let watched = options
            .namespaces
            .unwrap_or_else(|| vec![namespace.name().to_owned()]);
        let log = dir.join("controller.log");
        namespace.print_on_failure(log.clone());
        let mut command = Command::new(binary()?);
        command
            .arg("controller")
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .args(watched.iter().map(|name| format!("--namespace={name}")))
            .arg(format!("--lease-namespace={}", namespace.name()))
            .args(["--admin-listen=127.0.0.1:0", "--log-format=json"])
            .env("RUST_LOG", "info,wash_runtime::washlet::controller=debug")
            .env_remove("KUBECONFIG")
            .env_remove("POD_NAMESPACE");
        let mut process = Process::spawn("washlet controller", command, &log)?;
        let admin = eventually(
            "the controller tells where it listens",
            START_LIMIT,
            async || {
                let text = fs::read_to_string(&log).context("reading the controller's log")?;
                if let Some(admin) = text.lines().find_map(listening) {
                    return Ok(Ok(admin));
                }
                process.check_running()?;
                Ok(Err("no such line in its log"))
            },
        )
        .await?;
        Ok(Self {
            process,
            admin,
            log,
        })
    }

    /// Waits until it leads, which takes as long as the Lease of one that was killed.
    ///
    /// # Errors
    /// When it does not in time, or ends.
    pub async fn wait_leading(&mut self, limit: Duration) -> Result<()> {
        let (log, process) = (&self.log, &mut self.process);
        eventually("the controller leads", limit, async || {
            process.check_running()?;
            let text = fs::read_to_string(log).context("reading the controller's log")?;
            Ok(if text.contains("all is known") {
                Ok(())
            } else {
                Err("it stands by")
            })
        })
        .await
    }

    /// Whether it has led at any time.
    ///
    /// # Errors
    /// When its log can't be read.
    pub fn has_led(&self) -> Result<bool> {
        Ok(self.log()?.contains("all is known"))
    }

    /// All that it has logged.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).context("reading the controller's log")
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// When there is no answer, or none with status 200.
    pub async fn metrics(&self) -> Result<String> {
        tls::use_ring();
        let response = reqwest::Client::builder()
            .no_proxy()
            .build()
            .context("making an HTTP client")?
            .get(format!("http://{}/metrics", self.admin))
            .send()
            .await
            .context("asking the controller")?;
        if !response.status().is_success() {
            bail!("/metrics answers {}", response.status());
        }
        response
            .text()
            .await
            .context("reading the controller's answer")
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL: it has no chance to release its Lease.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// SIGTERM; gives the exit code.
    ///
    /// # Errors
    /// When it does not end in time, or dies by a signal.
    pub async fn terminate(&mut self) -> Result<i32> {
        self.process.terminate(END_LIMIT).await
    }
}

fn listening(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields")?;
    (fields.get("message")?.as_str()? == "listening").then_some(())?;
    fields.get("admin")?.as_str()?.parse().ok()
}
