//! What a component reaches by `wasi:sockets`: nothing, until its workload grants it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
};

use crate::local::{Local, folder, path, wasm, workload, yaml};

/// A server on this machine's loopback that answers every `ping` with `pong`, until the client has nothing more to say.
async fn pong() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut said = Vec::new();
            if stream.read_to_end(&mut said).await.is_ok() && said == b"ping" {
                let _ = stream.write_all(b"pong").await;
            }
        }
    });
    Ok(port)
}

#[tokio::test]
async fn the_nodes_loopback_is_opened_port_by_port() -> Result<()> {
    let port = pong().await?;
    let granted = json!({"localResources": {"allowedHostLoopbackPorts": [port.to_string()]}});
    let other =
        json!({"localResources": {"allowedHosts": ["*"], "allowedHostLoopbackPorts": ["1"]}});
    let file = folder("run")?.join("workloads.yaml");
    let objects = [
        workload("granted", "sockets", granted.clone()),
        workload("other", "sockets", other),
    ];
    fs::write(&file, yaml(&objects)).context("writing YAML")?;
    let local = Local::start(&["--allow-host-loopback", path(&file)?]).await?;
    local.ready(&["granted", "other"]).await?;
    let host = format!("/lookup?name=host.wasmcloud.internal&port={port}");
    local
        .expect("granted.test", &host, (200, "got pong"))
        .await?;
    local
        .expect("other.test", &host, (200, "access-denied"))
        .await?;
    local.says(&format!("{port}/tcp")).await?;
    // The node's 127.0.0.1 by that name is nobody's: it is the workload's own.
    let own = format!("/connect?to=127.0.0.1:{port}");
    local
        .expect("granted.test", &own, (200, "connection-refused"))
        .await?;
    local
        .expect("other.test", &own, (200, "connection-refused"))
        .await?;

    // A host that was not told so opens nothing.
    let local = Local::of(&[workload("granted", "sockets", granted)]).await?;
    local.says("--allow-host-loopback").await
}

/// The same by UDP.
async fn pong_datagrams() -> Result<u16> {
    let server = UdpSocket::bind("127.0.0.1:0").await?;
    let port = server.local_addr()?.port();
    tokio::spawn(async move {
        let mut said = [0; 16];
        while let Ok((length, from)) = server.recv_from(&mut said).await {
            if &said[..length] == b"ping" {
                let _ = server.send_to(b"pong", from).await;
            }
        }
    });
    Ok(port)
}

#[tokio::test]
async fn datagrams_leave_the_workload_where_they_may() -> Result<()> {
    let port = pong_datagrams().await?;
    let granted = format!("{port}/udp");
    let granted = json!({"localResources": {"allowedHostLoopbackPorts": [granted]}});
    let tcp = json!({"localResources": {
        "allowedHosts": ["tcp://10.255.255.1"],
        "allowedHostLoopbackPorts": [port.to_string()],
    }});
    let file = folder("run")?.join("workloads.yaml");
    let objects = [
        workload("granted", "sockets", granted),
        workload("tcp", "sockets", tcp),
    ];
    fs::write(&file, yaml(&objects)).context("writing YAML")?;
    let local = Local::start(&["--allow-host-loopback", path(&file)?]).await?;
    local.ready(&["granted", "tcp"]).await?;
    let host = format!("127.255.255.254:{port}");
    for (name, query, expected) in [
        ("granted.test", format!("to={host}"), "got pong"),
        ("granted.test", format!("to={host}&connected=1"), "got pong"),
        ("tcp.test", format!("to={host}"), "access-denied"),
        ("tcp.test", "to=10.255.255.1:53".to_owned(), "access-denied"),
        (
            "granted.test",
            format!("to={host}&bind=127.0.0.1:7000"),
            "access-denied",
        ),
        // The workload's own loopback, where nobody receives.
        (
            "granted.test",
            format!("to=127.0.0.1:{port}"),
            "nothing came",
        ),
        (
            "granted.test",
            format!("to=127.0.0.1:{port}&connected=1"),
            "connection-refused",
        ),
    ] {
        let path = format!("/datagram?{query}");
        local.expect(name, &path, (200, expected)).await?;
    }
    local.says("udp://10.255.255.1:53").await?;
    local.says(&format!("{port}/udp")).await
}

#[tokio::test]
async fn a_service_receives_datagrams_of_its_own_workload_only() -> Result<()> {
    for service in ["udp-service", "udp-service-p3"] {
        let mut own = workload("own", "sockets", json!({}));
        own["spec"]["service"] = json!({"image": format!("file:{}", wasm(service).display())});
        let other = json!({"localResources": {"allowedHosts": ["*"]}});
        let local = Local::of(&[own, workload("other", "sockets", other)]).await?;
        local.ready(&["own", "other"]).await?;
        let path = "/datagram?to=127.0.0.1:7000";
        local.answers("own.test", path, "got ping").await?;
        let connected = format!("{path}&connected=1");
        let ping = (200, "got ping");
        local.expect("own.test", &connected, ping).await?;
        let nothing = (200, "nothing came");
        local.expect("other.test", path, nothing).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_service_listens_for_its_own_workload_only() -> Result<()> {
    for service in ["net-service", "net-service-p3"] {
        let mut own = workload("own", "sockets", json!({}));
        own["spec"]["service"] = json!({"image": format!("file:{}", wasm(service).display())});
        let other = json!({"localResources": {"allowedHosts": ["*"]}});
        let local = Local::of(&[own, workload("other", "sockets", other)]).await?;
        local.ready(&["own", "other"]).await?;
        let connect = "/connect?to=127.0.0.1:7000";
        local.answers("own.test", connect, "got ping").await?;
        let refused = (200, "connection-refused");
        local.expect("other.test", connect, refused).await?;
        // Nor does this machine have such a port.
        ensure!(TcpStream::connect("127.0.0.1:7000").await.is_err());
    }
    Ok(())
}

#[tokio::test]
async fn names_are_looked_up_when_they_are_granted() -> Result<()> {
    let some = json!({"localResources": {"allowedIpNameLookups": ["*.example.com", "10.0.0.1"]}});
    let local = Local::of(&[
        workload("none", "sockets", json!({})),
        workload("some", "sockets", some),
    ])
    .await?;
    local.ready(&["none", "some"]).await?;
    for (host, name, expected) in [
        ("none.test", "localhost", "127.0.0.1"),
        ("none.test", "service.wasmcloud.internal", "127.0.0.1"),
        ("none.test", "10.0.0.1", "access-denied"),
        ("none.test", "a.example.com", "access-denied"),
        ("some.test", "10.0.0.1", "10.0.0.1"),
        ("some.test", "example.com", "access-denied"),
        ("some.test", "a..example.com", "invalid-argument"),
    ] {
        let path = format!("/lookup?name={name}");
        local.expect(host, &path, (200, expected)).await?;
    }
    local.says("allowedIpNameLookups").await
}

#[tokio::test]
async fn connections_need_a_rule() -> Result<()> {
    let hosts = |hosts| json!({"localResources": {"allowedHosts": hosts}});
    let local = Local::of(&[
        workload(
            "http",
            "sockets",
            hosts(json!(["http://10.255.255.1", "tcp://10.255.255.2:1"])),
        ),
        workload("all", "sockets", hosts(json!(["*"]))),
    ])
    .await?;
    local.ready(&["http", "all"]).await?;
    for (host, to) in [
        ("http.test", "10.255.255.1:80"),
        ("http.test", "10.255.255.2:2"),
        ("all.test", "169.254.169.254:80"),
        ("all.test", "127.255.255.254:80"),
    ] {
        let path = format!("/connect?to={to}");
        local.expect(host, &path, (200, "access-denied")).await?;
    }
    local.says("tcp://10.255.255.2:2").await
}

#[tokio::test]
async fn sockets_in_a_loop_harm_nobody_else() -> Result<()> {
    let local = Local::of(&[
        workload("many", "sockets", json!({})),
        workload("other", "sockets", json!({})),
    ])
    .await?;
    local.ready(&["many", "other"]).await?;
    for _ in 0..3 {
        let expected = (200, "512 then new-socket-limit");
        local.expect("many.test", "/many", expected).await?;
        let refused = (200, "connection-refused");
        local
            .expect("other.test", "/connect?to=127.0.0.1:80", refused)
            .await?;
    }
    let ok = local.get("many.test", "/connect?to=127.0.0.1:80").await?;
    ensure!(ok == (200, "connection-refused".to_owned()), "{ok:?}");
    Ok(())
}
