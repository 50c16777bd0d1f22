//! etcd, kube-apiserver and kube-controller-manager, on loopback and without a node unless one is to join.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
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

/// Who may do what: name, group. A node has a user of its own.
const USERS: [(&str, &str); 4] = [
    ("admin", "system:masters"),
    ("system:kube-controller-manager", "system:authenticated"),
    ("system:kube-proxy", "system:authenticated"),
    ("system:kube-scheduler", "system:authenticated"),
];

/// The client of kubelets that the API server is, and its certificate's name.
const KUBELET_CLIENT: &str = "kubelet-client";

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
    node: Option<Node>,
    audited: bool,
}

/// The node that joins.
struct Node {
    name: String,
    /// The first is the API server's too; the families are those of Services.
    addresses: Vec<IpAddr>,
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
        Self::start_for(version, None, false).await
    }

    /// As [`ControlPlane::start_with`]; every request is noted in [`ControlPlane::audit_log`].
    ///
    /// # Errors
    /// As [`ControlPlane::start_with`].
    pub async fn start_audited(version: Version) -> Result<Self> {
        Self::start_for(version, None, true).await
    }

    /// As [`ControlPlane::start_with`], for a real node with this name and these addresses of this machine.
    ///
    /// It listens on every address, so only in a network namespace of its own.
    ///
    /// # Errors
    /// As [`ControlPlane::start_with`].
    pub async fn start_for_node(
        version: Version,
        name: &str,
        addresses: &[IpAddr],
    ) -> Result<Self> {
        let node = Node {
            name: name.to_owned(),
            addresses: addresses.to_vec(),
        };
        Self::start_for(version, Some(node), false).await
    }

    async fn start_for(version: Version, node: Option<Node>, audited: bool) -> Result<Self> {
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
            node,
            audited,
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

    /// The requests that an audited API server has answered, one line of JSON each; watches when they begin and end.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.layout.path("audit.log")
    }

    /// A file of the control plane's, such as `ca.crt`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.layout.path(name)
    }

    /// The kubeconfig of a component's user.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.layout.kubeconfig(user)
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
            user.trim_start_matches("system:").replace(':', "-")
        ))
    }

    fn start_api_server(&self) -> Result<Process> {
        let mut command = Command::new(&self.programs.api_server);
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let (bind, advertise) = match &self.node {
            None => (loopback, loopback),
            Some(node) => (
                Ipv4Addr::UNSPECIFIED.into(),
                node.addresses.first().copied().unwrap_or(loopback),
            ),
        };
        command.arg(format!("--bind-address={bind}"));
        command.arg(format!("--advertise-address={advertise}"));
        command.args([
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
        ]);
        command.args([
            "--allow-privileged",
            &format!("--service-cluster-ip-range={}", self.service_ranges()),
            "--profiling=false",
        ]);
        command.args([
            "--service-account-issuer=https://kubernetes.default.svc",
            "--api-audiences=https://kubernetes.default.svc",
        ]);
        command
            .arg(format!("--secure-port={}", self.port))
            .arg(format!("--etcd-servers={}", self.etcd));
        if self.audited {
            let (policy, log) = (self.path("audit.yaml"), self.path("audit.log"));
            command.arg(format!("--audit-policy-file={}", policy.display()));
            command.arg(format!("--audit-log-path={}", log.display()));
        }
        let mut files = vec![
            ("tls-cert-file", "tls.crt"),
            ("tls-private-key-file", "tls.key"),
            ("token-auth-file", "tokens.csv"),
            ("service-account-key-file", "sa.pub"),
            ("service-account-signing-key-file", "sa.key"),
        ];
        if self.node.is_some() {
            // For the logs of pods. There is no DNS that knows the node.
            command.arg("--kubelet-preferred-address-types=InternalIP");
            files.push(("kubelet-client-certificate", "kubelet-client.crt"));
            files.push(("kubelet-client-key", "kubelet-client.key"));
        }
        for (flag, file) in files {
            command.arg(format!("--{flag}={}", self.path(file).display()));
        }
        Process::spawn("kube-apiserver", command, &self.path("kube-apiserver.log"))
    }

    /// Of the families that the node has, and IPv4 without one.
    fn service_ranges(&self) -> String {
        let addresses = self.node.iter().flat_map(|node| &node.addresses);
        let mut ranges: Vec<_> = addresses
            .map(|address| match address {
                IpAddr::V4(_) => "10.96.0.0/16",
                IpAddr::V6(_) => "fd00:96::/112",
            })
            .collect();
        if ranges.is_empty() {
            ranges.push("10.96.0.0/16");
        }
        ranges.join(",")
    }

    fn start_controller_manager(&self) -> Result<Process> {
        let mut command = Command::new(&self.programs.controller_manager);
        if self.node.is_none() {
            // No kubelet renews a lease here: these two would mark every Node as lost and evict its pods.
            command.arg("--controllers=*,-node-lifecycle-controller,-taint-eviction-controller");
        }
        command.args([
            "--leader-elect=false",
            "--secure-port=0",
            "--use-service-account-credentials",
            // In place of 15 seconds: tests wait for autoscalers.
            "--horizontal-pod-autoscaler-sync-period=1s",
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

/// Who asked for what; not before it is answered.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
";

/// Certificates, the keys of service accounts, and a token and a kubeconfig for each user.
fn write_secrets(layout: &Layout) -> Result<()> {
    let authority = Authority::new("washlet-e2e cluster")?;
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "10.96.0.1".to_owned(),
        "kubernetes.default.svc".to_owned(),
    ];
    let mut users: Vec<(String, &str)> = USERS
        .iter()
        .map(|&(user, group)| (user.to_owned(), group))
        .collect();
    if let Some(node) = &layout.node {
        names.extend(node.addresses.iter().map(ToString::to_string));
        users.push((format!("system:node:{}", node.name), "system:nodes"));
        authority.write_client(&layout.dir, KUBELET_CLIENT)?;
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    authority.write_server(&layout.dir, &names)?;
    fs::write(layout.path("audit.yaml"), AUDIT_POLICY).context("writing audit.yaml")?;
    let key = KeyPair::generate().context("making the key of service accounts")?;
    fs::write(layout.path("sa.key"), key.serialize_pem()).context("writing sa.key")?;
    fs::write(layout.path("sa.pub"), key.public_key_pem()).context("writing sa.pub")?;

    let server = format!("https://127.0.0.1:{}", layout.port);
    let mut tokens = String::new();
    for (user, group) in &users {
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
