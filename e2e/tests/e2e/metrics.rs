//! What goes wrong with requests is counted by reason, and read where a scraper reads it.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use washlet_e2e::{TestNamespace, eventually, with_namespace};

use crate::stage::{HEAL, Stage, ready};

/// Applies a workload of one component, at `NAME.test`.
async fn apply(
    ns: &TestNamespace,
    stage: &Stage,
    (name, image): (&str, &str),
    more: Value,
) -> Result<()> {
    let mut component =
        json!({"name": "app", "image": image, "imagePullSecret": {"name": "login"}});
    if let (Some(component), Value::Object(more)) = (component.as_object_mut(), more) {
        component.extend(more);
    }
    let object = json!({
        "apiVersion": "runtime.wasmcloud.dev/v1alpha1",
        "kind": "Workload",
        "metadata": {"name": name},
        "spec": {
            "hostId": stage.agent.node(),
            "terminationGracePeriodSeconds": 1,
            "components": [component],
            "hostInterfaces": [{
                "namespace": "wasi",
                "package": "http",
                "interfaces": ["incoming-handler"],
                "config": {"host": format!("{name}.test")},
            }],
        },
    });
    ns.apply(object).await?;
    ready(ns, name).await
}

/// What a scraper reads of one series, which has to be there once.
async fn scrape(stage: &Stage, series: &str) -> Result<u64> {
    let metrics = stage.agent.metrics().await?;
    let mut values = metrics.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (name == series).then_some(value)
    });
    let value = values
        .next()
        .with_context(|| format!("no {series} in:\n{metrics}"))?;
    ensure!(values.next().is_none(), "{series} is there twice");
    value.parse().with_context(|| format!("{series} {value}"))
}

fn of(ns: &TestNamespace, family: &str, workload: &str, label: &str) -> String {
    let namespace = ns.name();
    format!("washlet_http_{family}{{namespace=\"{namespace}\",workload=\"{workload}\"{label}}}")
}

/// Waits until a series has this value; what is counted at a guest's end comes a moment after the answer.
async fn counts(stage: &Stage, series: &str, wanted: u64) -> Result<()> {
    eventually(series, HEAL, async || {
        let value = scrape(stage, series).await?;
        Ok(if value == wanted { Ok(()) } else { Err(value) })
    })
    .await
}

/// The status of the answer to a request as it is, and the connection where the rest of it comes.
async fn ask(stage: &Stage, request: &str) -> Result<(u16, TcpStream)> {
    let mut stream = TcpStream::connect(stage.agent.http_addr()).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await?;
    let answer = String::from_utf8(answer)?;
    let status = answer[9..].parse().with_context(|| answer.clone())?;
    Ok((status, stream))
}

/// Only the status.
async fn raw(stage: &Stage, request: &str) -> Result<u16> {
    Ok(ask(stage, request).await?.0)
}

#[tokio::test]
async fn each_failure_is_counted_by_its_reason() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "faults", "v1").await?;
        apply(
            ns,
            &stage,
            ("faults", &image),
            json!({"requestTimeoutSeconds": 1}),
        )
        .await?;
        let small = json!({"resources": {"limits": {"memory": "64Ki"}}});
        apply(ns, &stage, ("small", &image), small).await?;
        let fuel = json!({"localResources": {"fuel": 10_000_000}});
        apply(ns, &stage, ("fueled", &image), fuel).await?;

        let failed = |workload: &str, reason: &str| {
            of(
                ns,
                "requests_failed_total",
                workload,
                &format!(",reason=\"{reason}\""),
            )
        };
        for (workload, path, status, reason) in [
            ("faults", "/panic", 500, "Trapped"),
            ("faults", "/no-response", 500, "NoAnswer"),
            ("faults", "/spin", 504, "DeadlineExceeded"),
            ("small", "/ok", 500, "MemoryLimit"),
            ("fueled", "/spin", 500, "OutOfFuel"),
        ] {
            counts(&stage, &failed(workload, reason), 0).await?;
            let host = format!("{workload}.test");
            stage.answers(&host, path, status, HEAL).await?;
            counts(&stage, &failed(workload, reason), 1).await?;
        }
        let too_large = format!(
            "POST /ok HTTP/1.1\r\nhost: faults.test\r\ncontent-length: {}\r\n\r\n",
            (64 << 20) + 1
        );
        ensure!(raw(&stage, &too_large).await? == 413);
        counts(&stage, &failed("faults", "BodyTooLarge"), 1).await?;
        let half = "GET /drop-body HTTP/1.1\r\nhost: faults.test\r\n\r\n";
        let (status, mut rest) = ask(&stage, half).await?;
        ensure!(status == 200);
        // A client that leaves before is none whose response was cut.
        let _ = rest.read_to_end(&mut Vec::new()).await;
        counts(&stage, &of(ns, "responses_cut_total", "faults", ""), 1).await?;

        let used = scrape(&stage, &of(ns, "fuel_total", "fueled", "")).await?;
        ensure!(used == 10_000_000, "{used}");

        // Nobody's.
        let refused =
            |reason: &str| format!("washlet_http_requests_refused_total{{reason=\"{reason}\"}}");
        let large = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
            "x".repeat(65 << 10)
        );
        for (request, status, reason) in [
            (large.as_str(), 431, "HeadTooLarge"),
            ("GET / HTTP/1.1\r\n\r\n", 400, "NoHost"),
            (
                "GET / HTTP/1.1\r\nhost: nobody.test\r\n\r\n",
                404,
                "NoRoute",
            ),
        ] {
            let before = scrape(&stage, &refused(reason)).await?;
            let answer = raw(&stage, request).await?;
            ensure!(answer == status, "{reason}: {answer}");
            counts(&stage, &refused(reason), before + 1).await?;
        }

        let all = scrape(&stage, &of(ns, "requests_total", "faults", "")).await?;
        ensure!(all == 5, "{all} requests, not 5");
        for (class, number) in [("2xx", 1), ("4xx", 1), ("5xx", 3)] {
            let series = of(
                ns,
                "responses_total",
                "faults",
                &format!(",code=\"{class}\""),
            );
            counts(&stage, &series, number).await?;
        }

        // Who is gone has no series.
        ns.delete("Workload", "small").await?;
        eventually("the series of what is gone are gone", HEAL, async || {
            let metrics = stage.agent.metrics().await?;
            let there = metrics.contains("workload=\"small\"");
            Ok(if there { Err(metrics) } else { Ok(()) })
        })
        .await
    })
    .await
}

#[tokio::test]
async fn queues_and_cut_requests_are_counted() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "slow", "v1").await?;
        let busy = json!({"maxInstances": 1});
        apply(ns, &stage, ("slow", &image), busy).await?;
        let gauge = |family: &str| of(ns, family, "slow", "");
        let failed = |reason: &str| {
            of(
                ns,
                "requests_failed_total",
                "slow",
                &format!(",reason=\"{reason}\""),
            )
        };
        let ask = || stage.agent.get("slow.test", "/?ms=30000");
        let (one, two, three, four, five, six, rest) =
            tokio::join!(ask(), ask(), ask(), ask(), ask(), ask(), async {
                // One runs, four may wait.
                counts(&stage, &gauge("requests_in_flight"), 5).await?;
                counts(&stage, &gauge("requests_waiting"), 4).await?;
                counts(&stage, &gauge("instances"), 1).await?;
                counts(&stage, &failed("NoFreeInstance"), 1).await?;
                // A new generation; the old one's second to end is not enough.
                let edited = json!({"maxInstances": 2});
                apply(ns, &stage, ("slow", &image), edited).await?;
                counts(&stage, &gauge("requests_in_flight"), 0).await?;
                counts(&stage, &failed("Stopped"), 5).await
            });
        rest?;
        for answer in [one, two, three, four, five, six] {
            let (status, body) = answer?;
            ensure!(status == 503, "{status}: {body}");
        }
        Ok(())
    })
    .await
}
