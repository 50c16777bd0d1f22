//! HTTP/2 and HTTPS as a stranger's client speaks them, here curl.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use washlet_e2e::{
    ALICE, Agent, AgentOptions, Registry, eventually, ports, process, tls::Authority,
    with_namespace,
};

use crate::{
    local::{Local, folder, path, workload, yaml},
    stage::{START, Stage, ready},
};

/// Nothing here takes long.
const LIMIT: Duration = Duration::from_secs(30);
/// Certificates are looked at every two seconds.
const RELOAD: Duration = Duration::from_secs(30);

/// What curl made of a request: protocol, status, and what it printed.
#[derive(Debug, PartialEq)]
struct Answer {
    version: String,
    status: String,
    text: String,
}

/// Asks for a URL; an error if curl has one.
async fn curl(args: &[&str]) -> Result<Answer> {
    let mut command = Command::new("curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "20",
        ])
        .args(["--write-out", "\n%{http_version} %{http_code}"])
        .args(args)
        .env_remove("CURL_CA_BUNDLE")
        .env_remove("SSL_CERT_FILE");
    let output = tokio::task::spawn_blocking(move || process::run(command, LIMIT)).await?;
    let output = output.context("these tests need curl, with HTTP/2")?;
    ensure!(
        output.status.success(),
        "curl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8(output.stdout)?;
    let (text, end) = said.rsplit_once('\n').context("no end")?;
    let (version, status) = end.split_once(' ').context("no status")?;
    Ok(Answer {
        version: version.to_owned(),
        status: status.to_owned(),
        text: text.to_owned(),
    })
}

/// A folder with a certificate for these names, by an authority that only this one knows.
fn certificate(names: &[&str]) -> Result<(PathBuf, String)> {
    let dir = folder("tls")?;
    Authority::new("test")?.write_server(&dir, names)?;
    let ca = path(&dir.join("ca.crt"))?.to_owned();
    Ok((dir, ca))
}

fn https_flags(dir: &Path, port: u16) -> [String; 3] {
    [
        format!("--https-listen=127.0.0.1:{port}"),
        format!("--tls-cert={}", dir.join("tls.crt").display()),
        format!("--tls-key={}", dir.join("tls.key").display()),
    ]
}

/// Asks a host over HTTPS, trusting this authority.
async fn https(host: &str, port: u16, ca: &str, version: &str) -> Result<Answer> {
    let resolve = format!("{host}:{port}:127.0.0.1");
    let url = format!("https://{host}:{port}/x");
    curl(&[
        version,
        "--cacert",
        ca,
        "--resolve",
        &resolve,
        "--include",
        &url,
    ])
    .await
}

#[tokio::test]
async fn curl_is_answered_over_every_protocol() -> Result<()> {
    let (dir, ca) = certificate(&["echo.test", "echo-p3.test"])?;
    let port = ports::free()?;
    let names = ["echo", "echo-p3"];
    let file = folder("run")?.join("echo.yaml");
    fs::write(
        &file,
        yaml(&names.map(|name| workload(name, name, json!({})))),
    )?;
    let flags = https_flags(&dir, port);
    let local = Local::start(&[path(&file)?, &flags[0], &flags[1], &flags[2]]).await?;
    local
        .says(&format!("listening on https://127.0.0.1:{port}"))
        .await?;
    local.ready(&names).await?;
    for name in names {
        let host = format!("{name}.test");
        let resolve = format!("{host}:{}:127.0.0.1", local.address.port());
        let url = format!("http://{host}:{}/x", local.address.port());
        for (flag, version) in [("--http2-prior-knowledge", "2"), ("--http1.1", "1.1")] {
            let args = [
                flag,
                "--resolve",
                &resolve,
                "--include",
                "--data",
                "hello",
                &url,
            ];
            let answer = curl(&args).await?;
            ensure!(
                (&*answer.version, &*answer.status) == (version, "200"),
                "{answer:?}"
            );
            ensure!(answer.text.contains("echo-scheme: http\r\n"), "{answer:?}");
            ensure!(answer.text.ends_with("\r\n\r\nhello"), "{answer:?}");
        }
        let head = [
            "--http2-prior-knowledge",
            "--resolve",
            &resolve,
            "--head",
            &url,
        ];
        ensure!(curl(&head).await?.status == "200", "HEAD");
        for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
            let answer = https(&host, port, &ca, flag).await?;
            ensure!(
                (&*answer.version, &*answer.status) == (version, "200"),
                "{answer:?}"
            );
            ensure!(answer.text.contains("echo-scheme: https\r\n"), "{answer:?}");
        }
        for tls in ["1.2", "1.3"] {
            let (flag, max) = (format!("--tlsv{tls}"), ["--tls-max", tls]);
            let resolve = format!("{host}:{port}:127.0.0.1");
            let url = format!("https://{host}:{port}/");
            let args = [
                &flag,
                max[0],
                max[1],
                "--cacert",
                &ca,
                "--resolve",
                &resolve,
                &url,
            ];
            ensure!(curl(&args).await?.status == "200", "TLS {tls}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn curl_sees_limits_and_their_flag() -> Result<()> {
    let file = folder("run")?.join("count.yaml");
    fs::write(&file, yaml(&[workload("count", "count", json!({}))]))?;
    let local = Local::start(&[path(&file)?, "--max-body=100Ki"]).await?;
    local.ready(&["count"]).await?;
    let (fits, larger) = (folder("body")?.join("fits"), folder("body")?.join("larger"));
    fs::write(&fits, vec![b'x'; 100 << 10])?;
    fs::write(&larger, vec![b'x'; 8 << 20])?;
    let resolve = format!("count.test:{}:127.0.0.1", local.address.port());
    let url = format!("http://count.test:{}/", local.address.port());
    let head = format!("x: {}", "x".repeat(70 << 10));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for length in [&[][..], &["--header", "Transfer-Encoding: chunked"]] {
            // HTTP/2 has no chunks, and curl tells no length of what it reads from a pipe only.
            for (body, status) in [(&fits, "200"), (&larger, "413")] {
                let body = format!("@{}", body.display());
                let args = [version, "--resolve", &resolve, "--data-binary", &body, &url];
                let answer = curl(&[&args[..], length].concat()).await?;
                ensure!(answer.status == status, "{version} {length:?}: {answer:?}");
            }
        }
    }
    // Over HTTP/2 curl itself sends no such head.
    let answer = curl(&["--http1.1", "--resolve", &resolve, "--header", &head, &url]).await?;
    ensure!(answer.status == "431", "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn a_renewed_certificate_is_seen_by_curl() -> Result<()> {
    let (dir, ca) = certificate(&["app.test"])?;
    let port = ports::free()?;
    let file = folder("run")?.join("app.yaml");
    fs::write(&file, yaml(&[workload("app", "v1", json!({}))]))?;
    let flags = https_flags(&dir, port);
    let local = Local::start(&[path(&file)?, &flags[0], &flags[1], &flags[2]]).await?;
    local.ready(&["app"]).await?;
    ensure!(https("app.test", port, &ca, "--http2").await?.status == "200");

    let (renewed, new_ca) = certificate(&["app.test"])?;
    for name in ["tls.crt", "tls.key"] {
        fs::copy(renewed.join(name), dir.join(name))?;
    }
    eventually("the new certificate is served", RELOAD, async || {
        Ok(https("app.test", port, &new_ca, "--http2").await)
    })
    .await?;
    ensure!(https("app.test", port, &ca, "--http2").await.is_err());

    fs::write(dir.join("tls.key"), "no key")?;
    local.says("the new certificate cannot be used").await?;
    ensure!(https("app.test", port, &new_ca, "--http2").await?.status == "200");
    Ok(())
}

#[tokio::test]
async fn workloads_of_an_agent_are_served_over_both() -> Result<()> {
    with_namespace(async |ns| {
        let registry = Registry::shared().await?;
        ns.apply_pull_secret("login", &registry.host(), ALICE)
            .await?;
        let host = format!("{}.test", ns.name());
        let (dir, ca) = certificate(&[&host])?;
        let port = ports::free()?;
        let options = AgentOptions {
            certs_d: vec![registry.certs_d()],
            args: https_flags(&dir, port).into(),
            ..AgentOptions::default()
        };
        let mut agent = Agent::start(ns, options).await?;
        agent.wait_ready(START).await?;
        let stage = Stage { agent, registry };
        let image = stage.push(ns, "echo", "v1").await?;
        let echo = stage.workload("echo", &image);
        ns.apply_yaml(&echo.replace("echo.test", &host)).await?;
        ready(ns, "echo").await?;

        let answer = https(&host, port, &ca, "--http2").await?;
        ensure!(
            (&*answer.version, &*answer.status) == ("2", "200"),
            "{answer:?}"
        );
        ensure!(answer.text.contains("echo-scheme: https\r\n"), "{answer:?}");
        let plain = stage.agent.http_addr();
        let resolve = format!("{host}:{}:127.0.0.1", plain.port());
        let url = format!("http://{host}:{}/", plain.port());
        let args = [
            "--http2-prior-knowledge",
            "--resolve",
            &resolve,
            "--data",
            "hello",
            &url,
        ];
        let answer = curl(&args).await?;
        ensure!(
            (&*answer.version, &*answer.text) == ("2", "hello"),
            "{answer:?}"
        );
        Ok(())
    })
    .await
}
