//! Volumes: what guests find in them, how long it lasts, and what they keep guests from.

mod read_only;

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use washlet_e2e::{Agent, AgentOptions, Registry, TestNamespace, eventually, with_namespace};

use crate::{
    local::{Local, folder, path, workload, yaml},
    stage::{self, START, fails, guest, ready, repository_of},
};

/// A ConfigMap is read again at least this often, and a bit.
const FOLLOWED: Duration = Duration::from_secs(45);

/// A workload `files` with these volumes, each mounted at `/NAME`, or at what `mounts` says.
fn files(guest: &str, volumes: Value, mounts: Option<Value>) -> Value {
    let each = volumes.as_array().into_iter().flatten().map(|volume| {
        let name = volume["name"].as_str().unwrap_or_default();
        json!({"name": name, "mountPath": format!("/{name}")})
    });
    let mounts = mounts.unwrap_or_else(|| each.collect());
    let local = json!({"localResources": {"volumeMounts": mounts}});
    let mut files = workload("files", guest, local);
    files["spec"]["volumes"] = volumes;
    files
}

/// All files below a folder whose content is this text.
fn found(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.extend(self::found(&entry.path(), text));
        } else if fs::read_to_string(entry.path()).is_ok_and(|t| t == text) {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn what_is_written_outlives_a_rollout_and_not_the_workload() -> Result<()> {
    let (dir, state) = (folder("volumes")?, folder("volumes-state")?);
    let file = dir.join("files.yaml");
    let mut app = files(
        "files",
        json!([{"name": "data"}, {"name": "tmp", "ephemeral": {}}]),
        None,
    );
    fs::write(&file, yaml(&[app.clone()]))?;
    let state_dir = format!("--state-dir={}", state.display());
    let local = Local::start(&[path(&file)?, &state_dir]).await?;
    local.answers("files.test", "/", "/data\n/tmp").await?;
    let says = async |path: &str, said: &str| local.expect("files.test", path, (200, said)).await;
    says("/make?at=/data/sub", "made").await?;
    says("/write?at=/data/sub/a&text=the-text", "written").await?;
    says("/write?at=/tmp/b&text=other", "written").await?;
    says("/remove?at=/tmp/b", "removed").await?;
    says("/list?at=/tmp", "").await?;
    ensure!(
        found(&state, "the-text").len() == 1,
        "not in the state directory"
    );

    app["spec"]["hostInterfaces"][0]["config"]["path"] = "/read".into();
    fs::write(&file, yaml(&[app.clone()]))?;
    local
        .answers("files.test", "/read?at=/data/sub/a", "the-text")
        .await?;
    eventually("the new route alone", START, async || {
        let got = local.get("files.test", "/list?at=/data").await?;
        Ok(if got.0 == 404 { Ok(()) } else { Err(got) })
    })
    .await?;
    says("/read?at=/data/sub/a", "the-text").await?;

    app["metadata"]["name"] = "another".into();
    fs::write(&file, yaml(&[app]))?;
    local.says("default/files: stopped").await?;
    eventually("its volumes are gone", START, async || {
        let left = found(&state, "the-text");
        Ok(if left.is_empty() { Ok(()) } else { Err(left) })
    })
    .await
}

#[tokio::test]
async fn a_guest_stays_in_its_directories() -> Result<()> {
    let dir = folder("volumes")?;
    let (root, outside) = (dir.join("root"), dir.join("outside"));
    for folder in [root.join("shown"), outside.clone()] {
        fs::create_dir_all(folder)?;
    }
    fs::write(outside.join("secret"), "not for guests")?;
    fs::write(root.join("shown/a"), "shown")?;
    symlink(outside.join("secret"), root.join("shown/absolute"))?;
    symlink("../../outside/secret", root.join("shown/relative"))?;
    symlink("a", root.join("shown/alias"))?;
    let volumes = json!([{"name": "host", "hostPath": {"path": root.join("shown")}}]);
    let file = dir.join("files.yaml");
    fs::write(&file, yaml(&[files("files", volumes, None)]))?;
    let allowed = format!("--host-path-root={}", root.display());
    let local = Local::start(&[path(&file)?, &allowed]).await?;
    local
        .answers("files.test", "/read?at=/host/a", "shown")
        .await?;
    local
        .answers("files.test", "/read?at=/host/alias", "shown")
        .await?;
    local
        .answers("files.test", "/write?at=/host/b&text=x", "written")
        .await?;
    ensure!(fs::read_to_string(root.join("shown/b"))? == "x");
    for escape in [
        "/read?at=/host/absolute",
        "/read?at=/host/relative",
        "/read?at=/host/../outside/secret",
        "/link?at=/host/l&to=/etc/passwd",
        "/write?at=/host/relative&text=x",
        "/list?at=/host/..",
        "/read?at=/etc/passwd",
    ] {
        let (status, said) = local.get("files.test", escape).await?;
        ensure!(
            status == 403 && !said.contains("not for guests"),
            "{escape}: {status} {said}"
        );
    }
    // A link out of the directory may be made by some hosts' rules, but never leads anywhere.
    local
        .get("files.test", "/link?at=/host/up&to=../../outside/secret")
        .await?;
    let (status, _) = local.get("files.test", "/read?at=/host/up").await?;
    ensure!(status == 403);
    ensure!(fs::read_to_string(outside.join("secret"))? == "not for guests");
    Ok(())
}

#[tokio::test]
async fn directories_of_the_machine_need_leave() -> Result<()> {
    let dir = folder("volumes")?;
    let (root, file) = (dir.join("root"), dir.join("files.yaml"));
    fs::create_dir_all(root.join("in"))?;
    symlink("/etc", root.join("out"))?;
    let allowed = format!("--host-path-root={}", root.display());
    let state = |at: &Path| -> Result<()> {
        let volumes = json!([{"name": "host", "hostPath": {"path": at}}]);
        Ok(fs::write(&file, yaml(&[files("files", volumes, None)]))?)
    };
    state(Path::new("/etc"))?;
    let local = Local::start(&[path(&file)?, &allowed]).await?;
    local.says("BindFailed: spec.volumes[0].hostPath.path: `/etc` is below no directory that this host allows").await?;
    local.says("--host-path-root").await?;
    state(&root.join("out"))?;
    local.says("leads by a symbolic link").await?;
    state(&root.join("later"))?;
    local.says("does not exist on this node").await?;
    fs::create_dir(root.join("later"))?;
    local.answers("files.test", "/", "/host").await
}

#[tokio::test]
async fn wasi_0_3_has_them_too() -> Result<()> {
    let map = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"key": "s3cret"}});
    let volumes = json!([{"name": "keys", "secret": {"secretName": "keys", "items": [{"key": "key", "path": "deep/key"}]}}]);
    let local = Local::of(&[files("files-p3", volumes, None), map]).await?;
    local.answers("files.test", "/", "/keys").await?;
    local
        .answers("files.test", "/?at=/keys/deep/key", "s3cret")
        .await?;
    let (status, said) = local
        .get("files.test", "/?at=/keys/../../etc/passwd")
        .await?;
    ensure!(status == 403, "{said}");
    Ok(())
}

#[tokio::test]
async fn a_volume_holds_what_its_limit_says_and_more_when_that_is_raised() -> Result<()> {
    let dir = folder("volumes")?;
    let file = dir.join("files.yaml");
    let of_size = |size: &str| {
        let volumes = json!([{"name": "data", "ephemeral": {"sizeLimit": size}}]);
        fs::write(&file, yaml(&[files("files", volumes, None)]))
    };
    of_size("64Ki")?;
    let local = Local::start(&[path(&file)?]).await?;
    local.answers("files.test", "/", "/data").await?;
    let fill = |name: &str| format!("/fill?at=/data/{name}&bytes=40960&by=write");
    let expect = async |path: &str, said: (u16, &str)| local.expect("files.test", path, said).await;
    expect(&fill("a"), (200, "filled")).await?;
    expect(&fill("b"), (403, "insufficient-space")).await?;
    of_size("128Ki")?;
    local.answers("files.test", &fill("b"), "filled").await?;
    // The volume is what it was.
    expect("/list?at=/data", (200, "a\nb")).await?;
    of_size("none")?;
    local
        .says("spec.volumes[0].ephemeral.sizeLimit: `none` is not a quantity of bytes")
        .await?;
    expect("/list?at=/data", (200, "a\nb")).await
}

/// Deeper than a path can name, and than a removal by recursion has stack or open files for.
#[tokio::test]
async fn what_a_hostile_guest_nests_is_removed() -> Result<()> {
    let (dir, state) = (folder("volumes")?, folder("volumes-state")?);
    let file = dir.join("files.yaml");
    let app = files("files", json!([{"name": "data"}]), None);
    let other = workload("other", "v1", json!({}));
    fs::write(&file, yaml(&[app, other.clone()]))?;
    let state_dir = format!("--state-dir={}", state.display());
    let local = Local::start(&[path(&file)?, &state_dir]).await?;
    local
        .answers("files.test", "/nest?at=/data/top&deep=3000", "made")
        .await?;
    let folders = || -> Result<usize> {
        let mut count = 0;
        for host in fs::read_dir(state.join("volumes"))?.flatten() {
            count += fs::read_dir(host.path()).map_or(0, Iterator::count);
        }
        Ok(count)
    };
    ensure!(folders()? == 1, "a folder of the workload");
    fs::write(&file, yaml(&[other]))?;
    local.says("default/files: stopped").await?;
    eventually("nothing is left", START, async || {
        Ok(match folders()? {
            0 => Ok(()),
            left => Err(left),
        })
    })
    .await?;
    local.expect("other.test", "/", (200, "v1")).await
}

#[tokio::test]
async fn a_workloads_files_follow_its_config_map() -> Result<()> {
    with_namespace(async |ns| {
        let (agent, image) = start(ns, vec![]).await?;
        let mut app: Value =
            serde_saphyr::from_str(&stage::workload(agent.node(), "files", &image))?;
        app["spec"]["volumes"] =
            json!([{"name": "conf", "configMap": {"name": "settings"}}, {"name": "data"}]);
        app["spec"]["components"][0]["localResources"]["volumeMounts"] =
            json!([{"name": "conf", "mountPath": "/conf"}, {"name": "data", "mountPath": "/data"}]);
        ns.apply(app.clone()).await?;
        let message = fails(ns, "files", "ReferenceNotFound").await?;
        ensure!(
            message.contains("spec.volumes[0].configMap.name")
                && message.contains("settings does not exist"),
            "{message}"
        );

        settings(ns, json!({"a": "1", "b": "1"})).await?;
        ready(ns, "files").await?;
        let get = async |path: &str| agent.get("files.test", path).await;
        ensure!(get("/read?at=/conf/a").await? == (200, "1".to_owned()));
        ensure!(get("/write?at=/data/x&text=kept").await?.0 == 200);
        let since = ns.get("Workload", "files").await?.data["status"]["components"].clone();

        settings(ns, json!({"a": "2", "c": "2"})).await?;
        eventually("the files follow", FOLLOWED, async || {
            let got = get("/read?at=/conf/a").await?;
            Ok(if got.1 == "2" { Ok(()) } else { Err(got) })
        })
        .await?;
        ensure!(get("/read?at=/conf/c").await?.1 == "2");
        ensure!(get("/read?at=/conf/b").await?.0 == 403);
        let now = ns.get("Workload", "files").await?.data["status"]["components"].clone();
        ensure!(now == since, "started anew: {since} {now}");
        ensure!(get("/read?at=/data/x").await?.1 == "kept");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_agent_allows_what_its_flag_says() -> Result<()> {
    with_namespace(async |ns| {
        let root = folder("volumes-root")?;
        fs::create_dir(root.join("models"))?;
        fs::write(root.join("models/a"), "model")?;
        let (agent, image) =
            start(ns, vec![format!("--host-path-root={}", root.display())]).await?;
        let mut app: Value =
            serde_saphyr::from_str(&stage::workload(agent.node(), "files", &image))?;
        let mut state = async |at: &Path| {
            app["spec"]["volumes"] = json!([{"name": "models", "hostPath": {"path": at}}]);
            app["spec"]["components"][0]["localResources"]["volumeMounts"] =
                json!([{"name": "models", "mountPath": "/models", "readOnly": true}]);
            ns.apply(app.clone()).await.map(drop)
        };
        state(Path::new("/etc")).await?;
        let message = fails(ns, "files", "BindFailed").await?;
        ensure!(
            message.contains("spec.volumes[0].hostPath.path: `/etc`")
                && message.contains("--host-path-root"),
            "{message}"
        );
        state(&root.join("models")).await?;
        ready(ns, "files").await?;
        ensure!(agent.get("files.test", "/read?at=/models/a").await? == (200, "model".to_owned()));
        ensure!(
            agent
                .get("files.test", "/write?at=/models/a&text=x")
                .await?
                .0
                == 403
        );
        Ok(())
    })
    .await
}

/// An agent with these arguments, and the image of the guest.
async fn start(ns: &TestNamespace, args: Vec<String>) -> Result<(Agent, String)> {
    let registry = Registry::shared().await?;
    ns.apply_pull_secret("login", &registry.host(), washlet_e2e::ALICE)
        .await?;
    let options = AgentOptions {
        certs_d: vec![registry.certs_d()],
        args,
        ..AgentOptions::default()
    };
    let mut agent = Agent::start(ns, options).await?;
    agent.wait_ready(START).await?;
    let repository = repository_of(ns, "files");
    let artifact = washlet_e2e::Artifact::wasm(&guest("files")?);
    registry.push(&repository, "v1", &artifact).await?;
    Ok((agent, registry.image(&repository, "v1")))
}

async fn settings(ns: &TestNamespace, data: Value) -> Result<()> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data});
    // Applied by one manager, what is left out goes away.
    ns.apply(map).await.map(drop)
}
