//! What components can do, and what they cannot, seen from outside: through `washlet run`, which has the agent's host.

mod bodies;
mod faults;
mod sockets;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use http_body_util::Full;
use hyper::{Response, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::local::{Local, workload};

const NO_ROUTE: (u16, &str) = (404, "no workload here serves this host and path\n");

#[tokio::test]
async fn components_of_all_versions_of_wasi_answer() -> Result<()> {
    let names = ["hello-p3", "hello-0-2-0", "v1"];
    let local = Local::of(&names.map(|name| workload(name, name, json!({})))).await?;
    local.ready(&names).await?;
    for name in names {
        let (status, body) = local.get(&format!("{name}.test"), "/").await?;
        ensure!(
            status == 200 && !body.is_empty(),
            "{name}: {status}: {body}"
        );
    }
    Ok(())
}

// === configuration ===

#[tokio::test]
async fn configuration_comes_in_layers() -> Result<()> {
    let configured = |name: &str| {
        let own = json!({"localResources": {"config": {"d": "component"}}});
        let mut workload = workload(name, name, own);
        let entry = json!({"namespace": "wasi", "package": "config", "interfaces": ["store"],
            "config": {"a": "inline", "b": "inline", "c": "inline", "d": "inline"},
            "configFrom": [{"name": "first"}, {"name": "second"}], "secretFrom": [{"name": "secret"}]});
        if let Some(entries) = workload["spec"]["hostInterfaces"].as_array_mut() {
            entries.push(entry);
        }
        workload
    };
    let map = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    let local = Local::of(&[
        map("first", json!({"b": "first", "c": "first", "d": "first"})),
        map("second", json!({"b": "second", "e": "second"})),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"},
            "data": {"c": "c2VjcmV0"}, "stringData": {"d": "secret"}}),
        configured("config"),
        configured("config-runtime"),
    ])
    .await?;
    let all = "a=inline\nb=second\nc=secret\nd=component\ne=second\n";
    for host in ["config.test", "config-runtime.test"] {
        local.answers(host, "/", all).await?;
        local.expect(host, "/c", (200, "secret")).await?;
        local.expect(host, "/x", (404, "no key x\n")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn logs_tell_whose_they_are() -> Result<()> {
    let local = Local::of(&[workload("talks", "logging", json!({}))]).await?;
    local.ready(&["talks"]).await?;
    for (level, logged) in [("info", "INFO"), ("warn", "WARN"), ("critical", "ERROR")] {
        let path = format!("/said-{level}");
        let request = format!("{path}?level={level}&context=of-the-test");
        local.expect("talks.test", &request, (200, "ok\n")).await?;
        local.says(&path).await?;
        let said = local.said()?;
        let lines = said
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines
            .into_iter()
            .find(|line| line["fields"]["message"] == path.as_str());
        let line = line.with_context(|| format!("no line of JSON with {path} in:\n{said}"))?;
        let fields = &line["fields"];
        ensure!(line["level"] == logged, "{line}");
        for (field, value) in [
            ("namespace", "default"),
            ("workload", "talks"),
            ("component", "app"),
            ("context", "of-the-test"),
        ] {
            ensure!(fields[field] == value, "{field}: {line}");
        }
    }
    Ok(())
}

// === the outside ===

/// A server on loopback that answers everything with `from outside`, and counts.
pub async fn outside() -> Result<(String, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let answer = service_fn(async |_| {
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(
                    "from outside",
                ))))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    Ok((address, connections))
}

#[tokio::test]
async fn outgoing_requests_are_denied_unless_they_are_allowed() -> Result<()> {
    let (address, connections) = outside().await?;
    let hosts = |hosts: Value| json!({"localResources": {"allowedHosts": hosts}});
    let local = Local::of(&[
        workload("none", "fetch", json!({})),
        workload(
            "other",
            "fetch",
            hosts(json!(["127.0.0.1:1", "example.com"])),
        ),
        workload("some", "fetch", hosts(json!([address]))),
        workload("none-p3", "fetch-p3", json!({})),
        workload(
            "some-p3",
            "fetch-p3",
            hosts(json!([format!("http://{address}")])),
        ),
    ])
    .await?;
    local
        .ready(&["none", "other", "some", "none-p3", "some-p3"])
        .await?;
    let path = format!("/?url=http://{address}/");
    for host in ["none.test", "other.test", "none-p3.test"] {
        local
            .expect(host, &path, (502, "HttpRequestDenied\n"))
            .await?;
    }
    ensure!(
        connections.load(Ordering::Relaxed) == 0,
        "it was connected to"
    );
    local.says(&format!("http://{address}")).await?;
    for host in ["some.test", "some-p3.test"] {
        local.expect(host, &path, (200, "from outside")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_ambient() -> Result<()> {
    let (address, connections) = outside().await?;
    let local = Local::of(&[workload("ambient", "ambient", json!({}))]).await?;
    local.ready(&["ambient"]).await?;
    let (status, report) = local
        .get("ambient.test", &format!("/?tcp={address}&dns=example.com"))
        .await?;
    ensure!(status == 200, "{status}: {report}");
    for line in ["env []", "args []", "cwd None", "preopens []"] {
        ensure!(
            report.lines().any(|l| l == line),
            "no `{line}` in:\n{report}"
        );
    }
    for word in ["dns", "connect", "listen"] {
        let denied = report
            .lines()
            .any(|l| l.starts_with(&format!("{word} Err(")));
        ensure!(denied, "{word} is not denied:\n{report}");
    }
    ensure!(connections.load(Ordering::Relaxed) == 0, "it has connected");
    Ok(())
}

// === routes ===

#[tokio::test]
async fn requests_find_the_route_that_fits_best() -> Result<()> {
    let route = |name: &str, config: Value, values: Value| {
        let mut workload = workload(
            name,
            "config",
            json!({"localResources": {"config": values}}),
        );
        workload["spec"]["hostInterfaces"][0]["config"] = config;
        workload
    };
    let local = Local::of(&[
        route(
            "exact",
            json!({"host": "exact.test"}),
            json!({"who": "exact"}),
        ),
        route(
            "below",
            json!({"host": "*.below.test"}),
            json!({"who": "below"}),
        ),
        route(
            "one",
            json!({"host": "one.below.test"}),
            json!({"who": "one"}),
        ),
        route(
            "root",
            json!({"host": "path.test"}),
            json!({"who": "root", "apis": "root"}),
        ),
        route(
            "api",
            json!({"host": "path.test", "path": "/api"}),
            json!({"api": "api", "api/a": "api"}),
        ),
        route(
            "deep",
            json!({"host": "path.test", "path": "/api/deep"}),
            json!({"api/deep/b": "deep"}),
        ),
        route(
            "only",
            json!({"host": "only.test", "path": "/only"}),
            json!({"only": "only"}),
        ),
    ])
    .await?;
    local
        .ready(&["exact", "below", "one", "root", "api", "deep", "only"])
        .await?;
    let port = local.address.port();
    let cases = [
        ("exact.test", "/who", (200, "exact")),
        ("EXACT.Test", "/who", (200, "exact")),
        (&format!("exact.test:{port}"), "/who", (200, "exact")),
        ("two.below.test", "/who", (200, "below")),
        ("a.two.below.test", "/who", (200, "below")),
        ("one.below.test", "/who", (200, "one")),
        ("below.test", "/who", NO_ROUTE),
        ("path.test", "/who", (200, "root")),
        ("path.test", "/api", (200, "api")),
        ("path.test", "/api/a", (200, "api")),
        ("path.test", "/apis", (200, "root")),
        ("path.test", "/api/deep/b", (200, "deep")),
        ("only.test", "/only", (200, "only")),
        ("only.test", "/", NO_ROUTE),
        ("nobody.test", "/", NO_ROUTE),
    ];
    for (host, path, wanted) in cases {
        local.expect(host, path, wanted).await?;
    }
    Ok(())
}
