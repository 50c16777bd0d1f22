//! Volumes that are full, as guests see it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use wash_runtime::{
    host::{Host, HostApi as _},
    spec,
    types::{Files, LocalResources, Mount, Volume, VolumeSource, Workload},
};

use super::host::{get, host, request, workload};

const FILES: &[u8] = include_bytes!("../../e2e/guests/wasm/files.wasm");
const FILES_P3: &[u8] = include_bytes!("../../e2e/guests/wasm/files-p3.wasm");

/// Two volumes of 64 KiB, at `/data` and `/other`.
fn with_volumes(bytes: &'static [u8]) -> Workload {
    let names = ["data", "other"];
    let mut workload = workload("files", "a.test", bytes);
    workload.volumes = names
        .map(|name| Volume {
            name: name.into(),
            source: VolumeSource::Ephemeral {
                size_limit: Some(64 << 10),
            },
        })
        .into();
    workload.components[0].local_resources = LocalResources {
        volume_mounts: names
            .map(|name| Mount {
                volume: name.into(),
                path: format!("/{name}"),
                read_only: false,
            })
            .into(),
        ..LocalResources::default()
    };
    workload
}

async fn started(bytes: &'static [u8]) -> (Arc<Host>, SocketAddr) {
    let (host, addr) = host().await;
    let started = host.workload_start(request(with_volumes(bytes))).await;
    started.expect("it starts");
    (host, addr)
}

/// Asks for one after the other; each has a path, the status, and what is answered.
async fn all_say(addr: SocketAddr, cases: &[(&str, &str, &str)]) {
    for (path, status, text) in cases {
        let (line, body) = get(addr, "a.test", path).await;
        assert!(
            line.contains(status) && body.contains(text),
            "{path}: {line} {body}"
        );
    }
}

const FULL: &str = "insufficient-space";

#[tokio::test]
async fn a_full_volume_refuses_what_is_more() {
    let (_host, addr) = started(FILES).await;
    all_say(
        addr,
        &[("/fill?at=/data/a&bytes=40960&by=write", "200", "filled")],
    )
    .await;
    for by in ["write", "stream", "zeroes", "append"] {
        let more = format!("/fill?at=/data/b&bytes=40960&by={by}");
        all_say(
            addr,
            &[(&more, "403", FULL), ("/remove?at=/data/b", "200", "")],
        )
        .await;
    }
    all_say(
        addr,
        &[
            ("/size?at=/data/b&bytes=40960", "403", FULL),
            ("/size?at=/data/b&bytes=1099511627776", "403", FULL),
            ("/size?at=/data/b&bytes=16384", "200", "sized"),
            // Full now, of names too.
            ("/make?at=/data/c", "403", FULL),
            ("/write?at=/data/c&text=x", "403", FULL),
            ("/link?at=/data/c&to=a", "403", FULL),
            ("/hard?at=/data/c&to=/data/a", "403", FULL),
            // Another volume has room, and does not take over what this one counts.
            ("/write?at=/other/a&text=x", "200", "written"),
            ("/hard?at=/other/b&to=/data/a", "403", "cross-device"),
            ("/move?at=/data/a&to=/other/b", "403", "cross-device"),
            ("/move?at=/data/a&to=/data/c", "200", "moved"),
            ("/read?at=/data/c", "200", "xxxx"),
            ("/list?at=/data", "200", "b\nc"),
            ("/remove?at=/data/c", "200", "removed"),
            ("/fill?at=/data/d&bytes=40960&by=append", "200", "filled"),
            ("/make?at=/data/c", "403", FULL),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_file_that_is_removed_while_it_is_open_still_counts() {
    let (_host, addr) = started(FILES).await;
    let hold = "/hold?at=/data/a&bytes=40960&other=/data/b";
    let both = "insufficient-space, filled";
    all_say(
        addr,
        &[(hold, "200", both), ("/remove?at=/data/b", "200", "")],
    )
    .await;
    // It is closed with the instance that had it.
    all_say(addr, &[(hold, "200", both)]).await;
}

#[tokio::test]
async fn a_full_volume_refuses_what_is_more_in_wasi_0_3() {
    let (_host, addr) = started(FILES_P3).await;
    const FULL: &str = "InsufficientSpace";
    all_say(
        addr,
        &[
            ("/?at=/data/a&do=write&bytes=40960", "200", "filled"),
            ("/?at=/data/b&do=write&bytes=40960", "403", FULL),
            ("/?at=/data/b&do=append&bytes=40960", "403", FULL),
            ("/?at=/data/b&do=size&bytes=40960", "403", FULL),
            ("/?at=/data/b&do=size&bytes=1099511627776", "403", FULL),
            ("/?at=/data/b&do=append&bytes=16384", "200", "filled"),
            ("/?at=/data/c&do=make", "403", FULL),
            ("/?at=/data/c&do=size", "403", FULL),
            ("/?at=/data/a&do=write&bytes=40960", "200", "filled"),
            ("/?at=/data/a", "200", "xxxx"),
            ("/?at=/data/a&do=remove", "200", "removed"),
            ("/?at=/data/c&do=append&bytes=40960", "200", "filled"),
            ("/?at=/data/d&do=make", "403", FULL),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_workload_has_so_many_files_open_and_no_more() {
    let (_host, addr) = started(FILES).await;
    // Those of the request before are closed with its instance.
    for _ in 0..2 {
        let most = [
            ("/many?at=/data/a", "200", "512 then insufficient-memory"),
            ("/lists?at=/data", "200", "16 then insufficient-memory"),
        ];
        all_say(addr, &most).await;
    }
}

/// Each that is not read would keep a thread of all workloads waiting.
#[tokio::test]
async fn directories_that_nobody_reads_keep_no_thread() {
    let (_host, addr) = started(FILES_P3).await;
    all_say(
        addr,
        &[
            ("/?at=/data/a&do=write&bytes=1", "200", "filled"),
            ("/?at=/data/b&do=make", "200", "made"),
            ("/?at=/data/c&do=make", "200", "made"),
            ("/?at=/data/d&do=list&bytes=600", "200", "a\nb\nc"),
            ("/?at=/data/a", "200", "x"),
        ],
    )
    .await;
}

/// With this text in the file `/conf/a`.
fn with_file(text: &str) -> spec::Workload {
    let mut workload = workload("files", "a.test", FILES);
    let content = [("a".to_owned(), text.to_owned().into())];
    workload.volumes = vec![Volume {
        name: "conf".into(),
        source: VolumeSource::Files(Files(Arc::new(content.into()))),
    }];
    workload.components[0].local_resources.volume_mounts = vec![Mount {
        volume: "conf".into(),
        path: "/conf".into(),
        read_only: false,
    }];
    workload.into_spec("files".into()).expect("valid")
}

/// Waits until the file has this text.
async fn says(addr: SocketAddr, text: &str) {
    let mut last = String::new();
    for _ in 0..500 {
        let (line, body) = get(addr, "a.test", "/read?at=/conf/a").await;
        if line.contains("200") && body == text {
            return;
        }
        last = body;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it says {last}, not {text}");
}

#[tokio::test]
async fn an_update_while_another_one_is_written_is_not_lost() {
    let (host, addr) = host().await;
    host.set(with_file("old"));
    says(addr, "old").await;
    for round in 0..10 {
        host.set(with_file("first"));
        // There is one thread only: the host's task begins to write, and waits for that.
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let last = format!("last of {round}");
        host.set(with_file(&last));
        says(addr, &last).await;
    }
}
