//! The Helm chart, through Helm itself.

use std::{
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    cluster::{Cluster, install_helm},
    namespace::TestNamespace,
    process, repository,
};

/// Nothing here waits for pods.
const LIMIT: Duration = Duration::from_secs(120);

/// Helm, and the cluster that it acts on, if any.
pub struct Helm {
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
}

// === impl Helm ===

impl Helm {
    /// Helm for what needs no cluster.
    ///
    /// # Errors
    /// When it can't be built.
    pub fn offline() -> Result<Self> {
        Ok(Self {
            program: install_helm()?,
            kubeconfig: None,
        })
    }

    /// Helm as a cluster's administrator.
    ///
    /// # Errors
    /// When it can't be built.
    pub fn of(cluster: &Cluster) -> Result<Self> {
        Ok(Self {
            kubeconfig: Some(cluster.kubeconfig().to_owned()),
            ..Self::offline()?
        })
    }

    /// Runs it and gives its standard output.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.output(args)?;
        if !output.status.success() {
            bail!(
                "helm {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it; gives what it said and how it ended.
    ///
    /// # Errors
    /// When it can't be started or does not end in time.
    pub fn output(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        // What a developer has set up for a cluster of their own is none of its business.
        command
            .env("KUBECONFIG", self.kubeconfig.clone().unwrap_or_default())
            .env_remove("HELM_NAMESPACE")
            .args(args);
        process::run(command, LIMIT).with_context(|| format!("helm {}", args.join(" ")))
    }
}

/// What the release `washlet` in this namespace is with these further arguments, for example `--set=environment=eu`.
///
/// # Errors
/// When Helm refuses them.
pub async fn rendered(namespace: &TestNamespace, args: &[String]) -> Result<String> {
    let mut all = vec!["template".to_owned(), "washlet".to_owned(), path()];
    all.extend(["--namespace".to_owned(), namespace.name().to_owned()]);
    all.extend(args.iter().cloned());
    let render = move || Helm::offline()?.run(&all.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(render).await.context("helm")?
}

/// Where the chart is.
#[must_use]
pub fn path() -> String {
    repository()
        .join("charts/washlet")
        .to_string_lossy()
        .into_owned()
}
