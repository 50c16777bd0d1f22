//! Mounts that may only be read, by both versions of WASI.

use anyhow::{Result, ensure};
use serde_json::json;

use super::files;
use crate::local::Local;

#[tokio::test]
async fn mounts_that_may_only_be_read_refuse_writes() -> Result<()> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}});
    let volumes = json!([{"name": "data"}, {"name": "conf", "configMap": {"name": "settings"}}]);
    let mounts = json!([
        {"name": "data", "mountPath": "/rw"}, {"name": "data", "mountPath": "/ro", "readOnly": true},
        {"name": "conf", "mountPath": "/conf"},
    ]);
    let local = Local::of(&[files("files", volumes, Some(mounts)), map]).await?;
    local.answers("files.test", "/read?at=/conf/a", "1").await?;
    let is =
        async |path: &str, status, said| local.expect("files.test", path, (status, said)).await;
    is("/write?at=/rw/a&text=x", 200, "written").await?;
    is("/read?at=/ro/a", 200, "x").await?;
    for refused in [
        "/write?at=/ro/a&text=y",
        "/write?at=/ro/new&text=y",
        "/make?at=/ro/new",
        "/remove?at=/ro/a",
        "/write?at=/conf/a&text=y",
        "/write?at=/conf/new&text=y",
        "/remove?at=/conf/a",
        "/link?at=/ro/l&to=a",
    ] {
        let (status, said) = local.get("files.test", refused).await?;
        ensure!(
            status == 403 && ["not-permitted", "read-only", "access"].contains(&said.as_str()),
            "{refused}: {status} {said}"
        );
    }
    is("/read?at=/rw/a", 200, "x").await?;
    is("/read?at=/conf/a", 200, "1").await
}

#[tokio::test]
async fn mounts_that_may_only_be_read_refuse_writes_by_wasi_0_3_too() -> Result<()> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}});
    let volumes = json!([{"name": "data"}, {"name": "conf", "configMap": {"name": "settings"}}]);
    let mounts = json!([
        {"name": "data", "mountPath": "/rw"}, {"name": "data", "mountPath": "/ro", "readOnly": true},
        {"name": "conf", "mountPath": "/conf"},
    ]);
    let local = Local::of(&[files("files-p3", volumes, Some(mounts)), map]).await?;
    local.answers("files.test", "/?at=/conf/a", "1").await?;
    let is = async |path: &str, said| local.expect("files.test", path, (200, said)).await;
    is("/?at=/rw/a&do=write&bytes=2", "filled").await?;
    is("/?at=/rw/a&do=append&bytes=3", "filled").await?;
    is("/?at=/rw/a&do=size&bytes=4", "sized").await?;
    is("/?at=/rw/b&do=make", "made").await?;
    is("/?at=/ro/a", "xxxx").await?;
    for mount in ["ro", "conf"] {
        for refused in [
            "a&do=write&bytes=9",
            "a&do=append&bytes=9",
            "a&do=size&bytes=9",
            // A file that was opened to be read.
            "a&do=write&bytes=9&as=read",
            "a&do=append&bytes=9&as=read",
            "a&do=size&bytes=9&as=read",
            "a&do=remove",
            "new&do=write&bytes=9",
            "new&do=make",
        ] {
            let path = format!("/?at=/{mount}/{refused}");
            let (status, said) = local.get("files.test", &path).await?;
            let known = ["NotPermitted", "ReadOnly", "Access", "BadDescriptor"];
            ensure!(
                status == 403 && known.iter().any(|code| said.ends_with(code)),
                "{path}: {status} {said}"
            );
        }
    }
    is("/?at=/ro/a", "xxxx").await?;
    is("/?at=/rw/x&do=list", "a\nb").await?;
    is("/?at=/conf/a", "1").await?;
    is("/?at=/rw/a&do=remove", "removed").await?;
    is("/?at=/ro/x&do=list", "b").await
}
