//! A Kubernetes API to test against: one started here, or the one that `KUBECONFIG` names.

mod control_plane;
mod kubeconfig;
mod programs;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use tokio::sync::OnceCell;

pub use control_plane::ControlPlane;
pub use kubeconfig::write as write_kubeconfig;
pub use programs::{NodePrograms, Programs, Version, install, install_helm, install_node};

use crate::{objects, process, repository, run_dir, tls};

/// No command of kubectl that a test gives takes longer, save `wait`, which has a timeout of its own.
const KUBECTL_LIMIT: Duration = Duration::from_secs(120);

/// How to reach a cluster, as its administrator.
#[derive(Clone, Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    scratch: PathBuf,
}

// === impl Cluster ===

impl Cluster {
    /// The cluster that all tests of this process share, started at the first call.
    ///
    /// It is the one that `KUBECONFIG` names when that is set. Its CRDs are this repository's.
    ///
    /// # Errors
    /// When it can't be started or reached; the same error at every call.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<std::result::Result<(Cluster, Option<ControlPlane>), String>> =
            OnceCell::const_new();
        let made = SHARED
            .get_or_init(|| async { start_shared().await.map_err(|error| format!("{error:#}")) })
            .await;
        match made {
            Ok((cluster, _)) => Ok(cluster),
            Err(message) => Err(anyhow!("{message}")),
        }
    }

    /// A cluster that runs already, as the user of this kubeconfig; with the kubectl that `KUBECTL` names, or our own.
    ///
    /// # Errors
    /// When there is no kubectl and none can be built.
    pub fn given(kubeconfig: PathBuf) -> Result<Self> {
        let kubectl = match std::env::var_os("KUBECTL") {
            Some(path) => PathBuf::from(path),
            None => install(Version::wanted()?)?.kubectl,
        };
        Ok(Self::new(kubeconfig, kubectl, run_dir::subdir("cluster")?))
    }

    pub(crate) fn new(kubeconfig: PathBuf, kubectl: PathBuf, scratch: PathBuf) -> Self {
        Self {
            kubeconfig,
            kubectl,
            scratch,
        }
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The kubectl that goes with it.
    #[must_use]
    pub fn kubectl_path(&self) -> &Path {
        &self.kubectl
    }

    /// A client of its own for the caller: a client's connections belong to the runtime, so to the test, that made it.
    ///
    /// # Errors
    /// When the kubeconfig can't be used.
    pub async fn client(&self) -> Result<Client> {
        tls::use_ring();
        let file = Kubeconfig::read_from(&self.kubeconfig).context("reading the kubeconfig")?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        Client::try_from(config.context("using the kubeconfig")?).context("making a client")
    }

    /// Runs kubectl and gives its standard output.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let this = self.clone();
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let run =
            move || this.kubectl_blocking(&args.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(run)
            .await
            .context("running kubectl")?
    }

    /// As [`Cluster::kubectl`], for places that can't await.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn kubectl_blocking(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.kubectl);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .arg("--cache-dir")
            .arg(self.scratch.join("kubectl-cache"))
            .args(args);
        let shown = || format!("kubectl {}", args.join(" "));
        let output = process::run(command, KUBECTL_LIMIT).with_context(shown)?;
        if !output.status.success() {
            bail!(
                "{}: {}",
                shown(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The address and the certificate authority that the administrator uses.
    ///
    /// # Errors
    /// When the kubeconfig names none.
    pub fn server(&self) -> Result<(String, Vec<u8>)> {
        kubeconfig::server(&self.kubeconfig)
    }

    /// Applies the repository's CRDs and waits until the API server serves them.
    ///
    /// # Errors
    /// When there are none, or the API server refuses one.
    pub async fn apply_crds(&self) -> Result<()> {
        let dir = repository().join("crds");
        let path = dir.to_str().context("the repository's path is no UTF-8")?;
        if !objects::has_yaml(&dir) {
            bail!("no CRDs in {path}: `cargo xtask generate` writes them");
        }
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", path])
            .await?;
        self.kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "-f",
            path,
        ])
        .await
        .map(drop)
    }
}

async fn start_shared() -> Result<(Cluster, Option<ControlPlane>)> {
    let (cluster, control_plane) = match existing()? {
        Some(cluster) => (cluster, None),
        None => {
            let started = ControlPlane::start().await?;
            (started.cluster().clone(), Some(started))
        }
    };
    cluster.apply_crds().await?;
    Ok((cluster, control_plane))
}

/// The cluster that the environment names.
fn existing() -> Result<Option<Cluster>> {
    let Some(kubeconfig) = given_kubeconfig() else {
        return Ok(None);
    };
    eprintln!(
        "using the cluster of KUBECONFIG={} (unset it to have one started)",
        kubeconfig.display()
    );
    Cluster::given(kubeconfig).map(Some)
}

pub(crate) fn given_kubeconfig() -> Option<PathBuf> {
    std::env::var_os("KUBECONFIG")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}
