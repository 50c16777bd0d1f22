//! Install, upgrade, rollback, uninstall: what Helm does to the kinds, and to Workloads that are there.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use washlet_e2e::{
    Cluster, ControlPlane,
    chart::{self, Helm},
    run_dir,
};

const WORKLOADS: &str = "workloads.runtime.wasmcloud.dev";

/// Helm and kubectl on a control plane of the test's own, as releases own kinds that all share.
struct Site<'a> {
    cluster: &'a Cluster,
}

// === impl Site ===

impl Site<'_> {
    async fn helm(&self, args: &[&str]) -> Result<String> {
        let cluster = self.cluster.clone();
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let run =
            move || Helm::of(&cluster)?.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(run).await.context("helm")?
    }

    async fn install(&self, namespace: &str, chart: &str, more: &[&str]) -> Result<String> {
        let args = ["install", "washlet", chart, "-n", namespace];
        let args = [&args[..], &["--create-namespace"], more].concat();
        self.helm(&args).await
    }

    /// What `kubectl get` says of an object in the namespace `washlet`, by a JSON path.
    async fn get(&self, object: &str, path: &str) -> Result<String> {
        let path = format!("-o=jsonpath={path}");
        self.cluster
            .kubectl(&["get", "-n", "washlet", object, &path])
            .await
    }

    async fn uninstall(&self, namespace: &str) -> Result<()> {
        let args = ["uninstall", "washlet", "-n", namespace];
        self.helm(&args).await.map(drop)
    }

    /// The title of a kind, and what agents log: both differ between versions and values.
    async fn state(&self) -> Result<(String, String)> {
        let title = "{.spec.versions[0].schema.openAPIV3Schema.title}";
        let level = "{.spec.template.spec.containers[0].env[?(@.name==\"RUST_LOG\")].value}";
        let title = self.get(&format!("crd/{WORKLOADS}"), title).await?;
        Ok((title, self.get("daemonset/washlet-agent", level).await?))
    }

    async fn apply_workload(&self) -> Result<String> {
        let file = run_dir::subdir("workload")?.join("workload.yaml");
        fs::write(
            &file,
            "apiVersion: runtime.wasmcloud.dev/v1alpha1\nkind: Workload\nmetadata: {name: live, namespace: default}\n\
             spec: {components: [{name: app, image: 'localhost/none:v1'}]}\n",
        )
        .context("writing a workload")?;
        self.cluster
            .kubectl(&["apply", "-f", &file.to_string_lossy()])
            .await?;
        self.uid().await
    }

    async fn uid(&self) -> Result<String> {
        let args = [
            "get",
            "workload",
            "live",
            "-n",
            "default",
            "-o=jsonpath={.metadata.uid}",
        ];
        self.cluster.kubectl(&args).await
    }
}

/// A copy of the chart as an earlier version would have been: with other words in a kind.
fn earlier() -> Result<String> {
    let dir = run_dir::subdir("chart")?.join("washlet");
    copy(Path::new(&chart::path()), &dir)?;
    let crd = dir.join("templates/crds/runtime.wasmcloud.dev_workloads.yaml");
    let text = fs::read_to_string(&crd).context("the chart's CRD")?;
    let older = text.replace("title: Workload\n", "title: Earlier\n");
    ensure!(older != text, "nothing to change in {}", crd.display());
    fs::write(&crd, older).context("writing the earlier CRD")?;
    Ok(dir.to_string_lossy().into_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).context("making a folder")?;
    for entry in from.read_dir().context("reading the chart")? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).context("copying the chart")?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn kinds_are_upgraded_with_the_release_and_outlive_it() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let cluster = control_plane.cluster();
    let site = Site { cluster };
    let chart = chart::path();
    let said = site.install("washlet", &earlier()?, &[]).await?;
    ensure!(
        said.contains("kubectl apply") && said.contains("WARNING: agents may read every Secret"),
        "{said}"
    );
    let uid = site.apply_workload().await?;
    ensure!(site.state().await? == ("Earlier".to_owned(), "info".to_owned()));
    let args = ["upgrade", "washlet", &chart, "-n", "washlet"];
    site.helm(&[&args[..], &["--set=log.level=debug"]].concat())
        .await?;
    ensure!(site.state().await? == ("Workload".to_owned(), "debug".to_owned()));
    site.helm(&["rollback", "washlet", "1", "-n", "washlet"])
        .await?;
    ensure!(site.state().await? == ("Earlier".to_owned(), "info".to_owned()));

    site.uninstall("washlet").await?;
    ensure!(site.uid().await? == uid, "the Workload is gone");
    let kinds = "clusterrole,clusterrolebinding,validatingadmissionpolicy,priorityclass";
    let left = cluster.kubectl(&["get", kinds, "-o", "name"]).await?;
    ensure!(!left.contains("washlet"), "{left}");
    // Over live Workloads, under the same name.
    site.install("washlet", &chart, &[]).await?;
    ensure!(site.uid().await? == uid, "the Workload is another one");

    // Of a second release the kinds are not.
    let refused = site.install("second", &chart, &[]).await;
    let refused = format!("{:#}", refused.err().context("two owners")?);
    ensure!(refused.contains("cannot be imported"), "{refused}");
    site.install("second", &chart, &["--set=crds.install=false"])
        .await?;
    site.uninstall("second").await?;
    ensure!(site.uid().await? == uid, "the Workload is gone");
    Ok(())
}

#[tokio::test]
async fn kinds_that_were_applied_before_are_taken_over_on_request() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let site = Site {
        cluster: control_plane.cluster(),
    };
    site.cluster.apply_crds().await?;
    let uid = site.apply_workload().await?;
    let chart = &chart::path();
    let refused = site
        .install("washlet", chart, &[])
        .await
        .err()
        .context("taken unasked")?;
    ensure!(
        format!("{refused:#}").contains("invalid ownership metadata"),
        "{refused:#}"
    );
    // Or left to whoever applied them.
    site.install("beside", chart, &["--set=crds.install=false"])
        .await?;
    site.uninstall("beside").await?;
    let take = ["--take-ownership", "--force-conflicts"];
    site.install("washlet", chart, &take).await?;
    let release = "{.metadata.annotations.meta\\.helm\\.sh/release-name}";
    ensure!(site.get(&format!("crd/{WORKLOADS}"), release).await? == "washlet");
    ensure!(site.uid().await? == uid, "the Workload is another one");
    Ok(())
}
