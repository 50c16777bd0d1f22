//! etcd, kube-apiserver and kube-controller-manager on loopback, without a node.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rcgen::KeyPair;

use super::{
    Cluster, given_kubeconfig, kubeconfig,
    programs::{Programs, Version, install},
};
use crate::{ports, process::Process, random, run_dir, tls::Authority, wait::eventually};

/// Three seconds on an idle machine; builds beside it make it many times that.
const READY_LIMIT: Duration = Duration::from_secs(90);

/// Who may do what: name, group.
const USERS: [(&str, &str); 2] = [
    ("admin", "system:masters"),
    ("system:kube-controller-manager", "system:authenticated"),
];

/// A control plane that was started here. Dropping it kills it.
///
/// A test that stops the API server starts one for itself: others share [`Cluster::shared`].
pub struct ControlPlane {
    // Dropped in this order: whoever uses a server goes before it.
    _controller_manager: Process,
    api_server: Process,
    _etcd: Process,
    layout: Layout,
    cluster: Cluster,
}

/// Where things are; enough to start the API server again as it was.
struct Layout {
    dir: PathBuf,
    programs: Programs,
    etcd: String,
    port: u16,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Starts one in a new directory and waits until it is ready.
    ///
    /// # Errors
    /// When a program can't be built or started, or is not ready in time; and when `KUBECONFIG` is set, as a run
    /// against a given cluster should not quietly use another.
    pub async fn start() -> Result<Self> {
        if let Some(given) = given_kubeconfig() {
            bail!(
                "this test stops and starts an API server, which it can't do to the cluster of KUBECONFIG={}: \
                 unset KUBECONFIG, or leave the test out with `-- --skip NAME`",
                given.display()
            );
        }
        Self::start_with(Version::wanted()?).await
    }

    /// As [`ControlPlane::start`], whatever `KUBECONFIG` and the wanted version say.
    ///
    /// # Errors
    /// When a program can't be built or started, or is not ready in time.
    pub async fn start_with(version: Version) -> Result<Self> {
        let programs = tokio::task::spawn_blocking(move || install(version))
            .await
            .context("building programs")??;
        let dir = run_dir::subdir("cluster")?;
        let (etcd, endpoint) = start_etcd(&dir, &programs)?;
        let layout = Layout {
            etcd: endpoint,
            port: ports::free()?,
            programs,
            dir,
        };
        write_secrets(&layout)?;
        let admin = layout.kubeconfig("admin");
        let cluster = Cluster::new(admin, layout.programs.kubectl.clone(), layout.dir.clone());

        let mut api_server = layout.start_api_server()?;
        wait_ready(&cluster, &mut api_server).await?;
        let controller_manager = layout.start_controller_manager()?;
        Ok(Self {
            _controller_manager: controller_manager,
            api_server,
            _etcd: etcd,
            layout,
            cluster,
        })
    }

    /// How to reach it.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Kills the API server; its port refuses connections until [`ControlPlane::start_api_server`].
    pub fn stop_api_server(&mut self) {
        self.api_server.kill9();
    }

    /// Starts the API server again on the port and with the data that it had.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn start_api_server(&mut self) -> Result<()> {
        self.api_server = self.layout.start_api_server()?;
        wait_ready(&self.cluster, &mut self.api_server).await
    }
}

// === impl Layout ===

impl Layout {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn kubeconfig(&self, user: &str) -> PathBuf {
        self.path(&format!(
            "{}.kubeconfig",
            user.trim_start_matches("system:")
        ))
    }

    fn start_api_server(&self) -> Result<Process> {
        let mut command = Command::new(&self.programs.api_server);
        command.args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"]);
        command.args([
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
        ]);
        command.args([
            "--allow-privileged",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--profiling=false",
        ]);
        command.args([
            "--service-account-issuer=https://kubernetes.default.svc",
            "--api-audiences=https://kubernetes.default.svc",
        ]);
        command
            .arg(format!("--secure-port={}", self.port))
            .arg(format!("--etcd-servers={}", self.etcd));
        for (flag, file) in [
            ("tls-cert-file", "tls.crt"),
            ("tls-private-key-file", "tls.key"),
            ("token-auth-file", "tokens.csv"),
            ("service-account-key-file", "sa.pub"),
            ("service-account-signing-key-file", "sa.key"),
        ] {
            command.arg(format!("--{flag}={}", self.path(file).display()));
        }
        Process::spawn("kube-apiserver", command, &self.path("kube-apiserver.log"))
    }

    fn start_controller_manager(&self) -> Result<Process> {
        let mut command = Command::new(&self.programs.controller_manager);
        // No kubelet renews a lease here: these two would mark every Node as lost and evict its pods.
        command.arg("--controllers=*,-node-lifecycle-controller,-taint-eviction-controller");
        command.args([
            "--leader-elect=false",
            "--secure-port=0",
            "--use-service-account-credentials",
        ]);
        let kubeconfig = self.kubeconfig("system:kube-controller-manager");
        command.arg(format!("--kubeconfig={}", kubeconfig.display()));
        command.arg(format!(
            "--service-account-private-key-file={}",
            self.path("sa.key").display()
        ));
        command.arg(format!("--root-ca-file={}", self.path("ca.crt").display()));
        Process::spawn(
            "kube-controller-manager",
            command,
            &self.path("kube-controller-manager.log"),
        )
    }
}

fn start_etcd(dir: &Path, programs: &Programs) -> Result<(Process, String)> {
    let client = format!("http://127.0.0.1:{}", ports::free()?);
    let peer = format!("http://127.0.0.1:{}", ports::free()?);
    let mut command = Command::new(&programs.etcd);
    // Nobody needs this data after a power cut.
    command.args(["--unsafe-no-fsync", "--log-level=warn"]);
    command.arg(format!("--data-dir={}", dir.join("etcd").display()));
    command
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"));
    command
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"));
    command.arg(format!("--initial-cluster=default={peer}"));
    Ok((
        Process::spawn("etcd", command, &dir.join("etcd.log"))?,
        client,
    ))
}

/// Certificates, the keys of service accounts, and a token and a kubeconfig for each user.
fn write_secrets(layout: &Layout) -> Result<()> {
    let authority = Authority::new("washlet-e2e cluster")?;
    let names = [
        "localhost",
        "127.0.0.1",
        "10.96.0.1",
        "kubernetes.default.svc",
    ];
    authority.write_server(&layout.dir, &names)?;
    let key = KeyPair::generate().context("making the key of service accounts")?;
    fs::write(layout.path("sa.key"), key.serialize_pem()).context("writing sa.key")?;
    fs::write(layout.path("sa.pub"), key.public_key_pem()).context("writing sa.pub")?;

    let server = format!("https://127.0.0.1:{}", layout.port);
    let mut tokens = String::new();
    for (user, group) in USERS {
        let token = random::word()?;
        tokens.push_str(&format!("{token},{user},{user},\"{group}\"\n"));
        kubeconfig::write(
            &layout.kubeconfig(user),
            &server,
            authority.pem().as_bytes(),
            &token,
            "default",
        )?;
    }
    fs::write(layout.path("tokens.csv"), tokens).context("writing tokens.csv")
}

async fn wait_ready(cluster: &Cluster, process: &mut Process) -> Result<()> {
    let client = cluster.client().await?;
    eventually("kube-apiserver is ready", READY_LIMIT, async || {
        process.check_running()?;
        let request = http::Request::get("/readyz")
            .body(Vec::new())
            .context("a request")?;
        Ok(client
            .request_text(request)
            .await
            .map(drop)
            .map_err(|error| error.to_string()))
    })
    .await
}
