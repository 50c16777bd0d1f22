//! The Helm chart: what its values do, and that the API server takes what it renders. On a node it is `real_node`'s.

mod lifecycle;
mod rendered;
mod values;
mod variants;

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use washlet_e2e::{
    chart::{self, Helm},
    repository, run_dir, with_namespace,
};

use crate::stage::{Stage, ready};

/// Renders the chart with these values, as the release `washlet`.
fn render(helm: &Helm, namespace: &str, values: &Value) -> Result<String> {
    let file = run_dir::subdir("values")?.join("values.json");
    fs::write(&file, values.to_string()).context("writing values")?;
    let file = file.to_string_lossy();
    helm.run(&[
        "template",
        "washlet",
        &chart::path(),
        "--namespace",
        namespace,
        "--values",
        &file,
    ])
}

/// The values as they are in the chart.
fn defaults() -> Result<Value> {
    let path = repository().join("charts/washlet/values.yaml");
    let text = fs::read_to_string(path).context("reading values.yaml")?;
    serde_saphyr::from_str(&text).context("values.yaml")
}

#[test]
fn helm_lint_finds_nothing() -> Result<()> {
    let said = Helm::offline()?.run(&["lint", "--strict", &chart::path()])?;
    ensure!(said.contains("0 chart(s) failed"), "{said}");
    Ok(())
}

#[test]
fn no_two_releases_share_a_name_outside_their_namespaces() -> Result<()> {
    let helm = Helm::offline()?;
    let names = |release: &str, namespace: &str| -> Result<Vec<String>> {
        let said = helm.run(&[
            "template",
            release,
            &chart::path(),
            "--namespace",
            namespace,
            "--set=crds.install=false",
        ])?;
        let mut names = Vec::new();
        for document in said.split("\n---") {
            let line = |start: &str| document.lines().find_map(|line| line.strip_prefix(start));
            if let (Some(kind), Some(name)) = (line("kind: "), line("  name: "))
                && line("  namespace: ").is_none()
            {
                names.push(format!("{kind}/{name}"));
            }
        }
        Ok(names)
    };
    let releases = [
        ("washlet", "washlet"),
        ("washlet", "a"),
        ("washlet", "b"),
        ("other", "a"),
    ];
    let mut all = Vec::new();
    for (release, namespace) in releases {
        all.extend(names(release, namespace)?);
    }
    let count = all.len();
    ensure!(
        count == releases.len() * names("washlet", "washlet")?.len() && count > 20,
        "{all:?}"
    );
    all.sort();
    all.dedup();
    ensure!(all.len() == count, "{all:?}");
    Ok(())
}

#[tokio::test]
async fn the_dashboard_asks_for_what_is_measured() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        // Some are measured only when something happens.
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("hello", &image)).await?;
        ready(ns, "hello").await?;
        let mut measured = stage.agent.metrics().await?;
        // The controller's are known by its source, as it takes no node to run one.
        let source = repository().join("src/washlet/controller/metrics.rs");
        measured.push_str(&fs::read_to_string(source).context("the controller's metrics")?);
        let dashboard = repository().join("charts/washlet/dashboards/washlet.json");
        let dashboard = fs::read_to_string(dashboard).context("reading the dashboard")?;
        let _: Value = serde_json::from_str(&dashboard).context("the dashboard is no JSON")?;
        let mut asked = 0;
        for word in dashboard.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let Some(name) = word.strip_prefix("washlet_") else {
                continue;
            };
            asked += 1;
            let family = ["_total", "_bucket", "_seconds"]
                .iter()
                .fold(name, |name, suffix| {
                    name.strip_suffix(suffix).unwrap_or(name)
                });
            let found = match family.strip_prefix("controller_") {
                Some(family) => measured.contains(&format!("\"{family}\"")),
                None => measured.contains(&format!("# TYPE washlet_{family} ")),
            };
            ensure!(found, "nobody measures washlet_{name}");
        }
        ensure!(asked > 10, "{asked}");
        Ok(())
    })
    .await
}
