//! Every command of `docs/deployments.md`, in its order, as a reader would paste it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use kube::api::ListParams;
use serde_json::{Value, json};
use washlet_e2e::{ALICE, TestNamespace, eventually, process, repository, run_dir, with_namespace};

use super::{DECIDED, Fleet, is_ready, wait_collected};
use crate::stage::{START, repository_of};

const SAMPLE: &str = "manifests/samples/deployment.yaml";
/// What the sample names, and the playground has.
const IMAGE: &str = "localhost:5001/washlet/hello:v1";
/// The sections that have commands.
const SECTIONS: [&str; 7] = [
    "Start",
    "Scaling",
    "Rolling updates",
    "Restart",
    "Undo",
    "Services",
    "Whose is what",
];
/// Whatever stands in a template has to survive its way through a shell.
const ODD: &str = "it's \"quoted\" $HOME \\n `date` ü";

/// The sample with an image of the test's own, `v1`; its secret is made.
pub(super) async fn sample(ns: &TestNamespace, fleet: &Fleet) -> Result<String> {
    fleet.push(ns, "v1", "v1").await?;
    let registry = fleet.registry;
    ns.apply_pull_secret("my-registry-secret", &registry.host(), ALICE)
        .await?;
    let text = fs::read_to_string(repository().join(SAMPLE))?;
    ensure!(text.contains(IMAGE), "{SAMPLE} does not name {IMAGE}");
    Ok(text.replace(IMAGE, &registry.image(&repository_of(ns, "v1"), "v1")))
}

/// A reader at work.
struct Reader<'a> {
    ns: &'a TestNamespace,
    /// Where the sample is, and a kubectl for the test's namespace.
    dir: PathBuf,
    guide: String,
}

impl<'a> Reader<'a> {
    fn new(ns: &'a TestNamespace, sample: &str) -> Result<Self> {
        let dir = run_dir::subdir("guide")?;
        let kubectl = format!(
            "#!/bin/sh\nexec '{}' --kubeconfig='{}' --namespace='{}' \"$@\"\n",
            ns.cluster().kubectl_path().display(),
            ns.cluster().kubeconfig().display(),
            ns.name(),
        );
        fs::write(dir.join("kubectl"), kubectl)?;
        fs::set_permissions(dir.join("kubectl"), fs::Permissions::from_mode(0o755))?;
        fs::create_dir_all(dir.join("manifests/samples"))?;
        fs::write(dir.join(SAMPLE), sample)?;
        let guide = fs::read_to_string(repository().join("docs/deployments.md"))?;
        for section in guide.split("\n## ").filter(|text| text.contains("```sh")) {
            let title = section.lines().next().unwrap_or_default();
            ensure!(SECTIONS.contains(&title), "nobody follows `{title}`");
        }
        Ok(Self { ns, dir, guide })
    }

    /// Runs the commands of a section, and gives what they print.
    async fn follow(&self, section: &str) -> Result<String> {
        let script = commands(&self.guide, section)?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .args(["-euc", &script])
            .current_dir(&self.dir)
            .env("PATH", format!("{}:{path}", self.dir.display()));
        let ran = tokio::task::spawn_blocking(move || process::run(command, START * 2)).await?;
        let output = ran.with_context(|| script.clone())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{script}\n{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(said)
    }

    async fn template(&self) -> Result<Value> {
        let deployment = self.ns.get("WorkloadDeployment", "hello").await?;
        Ok(deployment.data["spec"]["template"].clone())
    }

    /// The UIDs of the Workloads, once there are so many and all of them Ready.
    async fn workloads(&self, count: usize) -> Result<Vec<String>> {
        let api = self.ns.api("Workload")?;
        eventually(&format!("{count} Workloads"), START, async || {
            let all = api.list(&ListParams::default()).await?.items;
            let uids = all.iter().filter_map(|w| w.metadata.uid.clone()).collect();
            let done = all.len() == count && all.iter().all(is_ready);
            Ok(if done {
                Ok(uids)
            } else {
                Err::<_, Vec<_>>(uids)
            })
        })
        .await
    }
}

/// The lines of all `sh` blocks of a section.
fn commands(guide: &str, section: &str) -> Result<String> {
    let mut sections = guide.split("\n## ");
    let text = sections.find_map(|text| text.strip_prefix(section)?.strip_prefix('\n'));
    let text = text.with_context(|| format!("the guide has no section `{section}`"))?;
    let blocks = text.split("```sh\n").skip(1);
    let blocks: Vec<_> = blocks.filter_map(|rest| rest.split("```").next()).collect();
    ensure!(!blocks.is_empty(), "`{section}` has no commands");
    Ok(blocks.concat())
}

#[tokio::test]
async fn every_command_of_the_guide_works_in_its_order() -> Result<()> {
    with_namespace(async |ns| {
        let fleet = Fleet::start(ns, 2).await?;
        let odd = format!("template:\n    annotations:\n      odd: {}\n", json!(ODD));
        let sample = sample(ns, &fleet).await?.replace("template:\n", &odd);
        let reader = Reader::new(ns, &sample)?;
        roll_out_and_back(&reader).await?;

        // The port of the sample's Service, on both hosts.
        let said = eventually("endpoints", DECIDED, async || {
            let said = reader.follow("Services").await?;
            Ok(
                if said.contains("192.0.2.1,192.0.2.2") || said.contains("192.0.2.2,192.0.2.1") {
                    Ok(said)
                } else {
                    Err(said)
                },
            )
        })
        .await?;
        let mut ports: Vec<_> = said
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2))
            .collect();
        ports.retain(|port| port.len() == 5 && port.starts_with('2'));
        ports.dedup();
        ensure!(ports.len() == 1, "{said}");

        // One is let go and replaced, and all go on without their deployment.
        wait_collected(ns).await?;
        let before = reader.workloads(2).await?;
        reader.follow("Whose is what").await?;
        let after = reader.workloads(3).await?;
        ensure!(
            before.iter().all(|uid| after.contains(uid)),
            "{before:?} {after:?}"
        );
        let owned = "jsonpath={.items[*].metadata.ownerReferences[*].kind}";
        let owned = ns.kubectl(&["get", "ww,wrs", "-o", owned]).await?;
        ensure!(owned == "WorkloadReplicaSet WorkloadReplicaSet", "{owned}");
        ns.wait_gone("WorkloadDeployment", "hello", START).await
    })
    .await
}

/// Start, scale, change, restart and undo.
async fn roll_out_and_back(reader: &Reader<'_>) -> Result<()> {
    let said = reader.follow("Start").await?;
    ensure!(
        said.contains("hello") && said.contains("Available"),
        "{said}"
    );
    reader.workloads(3).await?;
    reader.follow("Scaling").await?;
    reader.workloads(5).await?;
    reader
        .ns
        .kubectl(&["scale", "wd/hello", "--replicas=2"])
        .await?;
    let mut seen = vec![reader.workloads(2).await?];
    let mut former = reader.template().await?;
    ensure!(former["annotations"]["odd"] == ODD, "{former}");

    reader.follow("Rolling updates").await?;
    seen.push(reader.workloads(2).await?);
    let changed = reader.template().await?;
    let level = "/spec/components/0/localResources/environment/config/LOG_LEVEL";
    ensure!(changed.pointer(level) == Some(&json!("debug")), "{changed}");

    reader.follow("Restart").await?;
    seen.push(reader.workloads(2).await?);
    let restarted = reader.template().await?["annotations"].take();
    let at = restarted["kubectl.kubernetes.io/restartedAt"].as_str();
    ensure!(at.is_some_and(|at| at.contains('T')), "{restarted}");
    ensure!(restarted["odd"] == ODD, "{restarted}");

    reader.follow("Undo").await?;
    seen.push(reader.workloads(2).await?);
    // What stands in the deployment itself is in the template of its sets.
    former["spec"]["kubernetes"] = json!({ "service": { "name": "hello" } });
    let template = reader.template().await?;
    ensure!(template == former, "{template} is not {former}");

    let mut all = seen.concat();
    all.sort();
    all.dedup();
    ensure!(all.len() == 8, "each made new ones: {seen:?}");
    let sets = reader.ns.kubectl(&["get", "wrs", "-o", "name"]).await?;
    ensure!(sets.lines().count() == 3, "the first is used again: {sets}");
    Ok(())
}
