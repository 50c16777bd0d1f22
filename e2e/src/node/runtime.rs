//! containerd, and the network of pods.

use std::{fs, net::IpAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{images, machine};
use crate::{
    process::{self, Process},
    wait::eventually,
};

/// In `/run` of the namespaces, which is theirs alone.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";

const READY_LIMIT: Duration = Duration::from_secs(60);
const CTR_LIMIT: Duration = Duration::from_secs(60);

/// Starts containerd and gives it the images.
pub(super) async fn start(dir: &Path, addresses: &[IpAddr], images: &Path) -> Result<Process> {
    let cni = dir.join("cni");
    fs::create_dir_all(&cni).context("making a folder for CNI")?;
    fs::write(cni.join("10-pods.conflist"), network(addresses).to_string())
        .context("writing the network of pods")?;
    let bin = machine::cni_dir().context("the CNI plugins are gone")?;
    fs::write(dir.join("containerd.toml"), config(&cni, &bin))
        .context("writing containerd's configuration")?;

    let mut command = Command::new(machine::find("containerd").context("no containerd")?);
    command.arg("--config").arg(dir.join("containerd.toml"));
    let mut process = Process::spawn("containerd", command, &dir.join("containerd.log"))?;
    eventually("containerd answers", READY_LIMIT, async || {
        process.check_running()?;
        Ok(ctr(&["version"]).await.map_err(|error| error.to_string()))
    })
    .await?;
    for file in images::FILES {
        let path = images.join(file);
        let path = path.to_str().context("a path that is no UTF-8")?;
        ctr(&["--namespace", "k8s.io", "images", "import", path]).await?;
    }
    Ok(process)
}

/// Pods get addresses of the same families as the node.
fn network(addresses: &[IpAddr]) -> Value {
    let family = |address: &IpAddr| match address {
        IpAddr::V4(_) => ("10.201.0.0/24", "0.0.0.0/0"),
        IpAddr::V6(_) => ("fd00:201::/64", "::/0"),
    };
    let (ranges, routes): (Vec<_>, Vec<_>) = addresses
        .iter()
        .map(family)
        .map(|(subnet, route)| (json!([{"subnet": subnet}]), json!({"dst": route})))
        .unzip();
    json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "pods0", "isGateway": true, "hairpinMode": true,
         "ipam": {"type": "host-local", "ranges": ranges, "routes": routes}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]})
}

fn config(cni: &Path, bin: &Path) -> String {
    let plugin = "plugins.\"io.containerd.grpc.v1.cri\"";
    format!(
        "version = 2
[{plugin}]
sandbox_image = \"{pause}\"
# Without CAP_SYS_RESOURCE, which containers that are machines lack, no score may be lowered.
restrict_oom_score_adj = true
[{plugin}.cni]
bin_dir = \"{bin}\"
conf_dir = \"{cni}\"
",
        pause = images::PAUSE,
        bin = bin.display(),
        cni = cni.display(),
    )
}

async fn ctr(args: &[&str]) -> Result<()> {
    let program = machine::find("ctr").context("no ctr")?;
    let mut command = Command::new(program);
    command.args(["--address", SOCKET]).args(args);
    let shown = format!("ctr {}", args.join(" "));
    let output = tokio::task::spawn_blocking(move || process::run(command, CTR_LIMIT))
        .await
        .context("running ctr")??;
    if !output.status.success() {
        bail!(
            "{shown}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
