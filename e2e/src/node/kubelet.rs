//! The kubelet, kube-proxy and the scheduler.

use std::{fs, net::IpAddr, path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::json;

use super::{NODE, runtime};
use crate::{
    cluster::{ControlPlane, NodePrograms},
    process::Process,
};

/// What every node has beside containers, dropped in this order.
pub(super) struct Services {
    kubelet: Process,
    _proxy: Process,
    _scheduler: Process,
    start_kubelet: Box<dyn Fn() -> Result<Process> + Send>,
}

// === impl Services ===

impl Services {
    /// Starts all three, and waits for nothing.
    pub(super) fn start(
        dir: &Path,
        programs: &NodePrograms,
        control_plane: &ControlPlane,
        addresses: &[IpAddr],
        cgroup: &str,
    ) -> Result<Self> {
        let kubelet = kubelet(dir, programs, control_plane, addresses, cgroup)?;
        Ok(Self {
            kubelet: kubelet()?,
            _proxy: start_proxy(dir, programs, control_plane)?,
            _scheduler: start_scheduler(dir, programs, control_plane)?,
            start_kubelet: Box::new(kubelet),
        })
    }

    /// Kills the kubelet and starts it again, which makes its Node where that is gone.
    pub(super) fn restart_kubelet(&mut self) -> Result<()> {
        self.kubelet.kill9();
        self.kubelet = (self.start_kubelet)()?;
        Ok(())
    }

    /// Fails when the kubelet has ended.
    pub(super) fn check_running(&mut self) -> Result<()> {
        self.kubelet.check_running()
    }
}

/// Writes the kubelet's configuration; what it gives starts one.
fn kubelet(
    dir: &Path,
    programs: &NodePrograms,
    control_plane: &ControlPlane,
    addresses: &[IpAddr],
    cgroup: &str,
) -> Result<impl Fn() -> Result<Process> + Send + 'static> {
    let resolv_conf = dir.join("resolv.conf");
    fs::write(&resolv_conf, "").context("writing resolv.conf")?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": false},
            "x509": {"clientCAFile": control_plane.path("ca.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},
        // One group for all pods, which the run removes.
        "cgroupRoot": cgroup,
        "cgroupDriver": "cgroupfs",
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        // A full disk is the machine's business, not this test's.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "healthzPort": 0,
        "readOnlyPort": 0,
        "resolvConf": resolv_conf,
        "podLogsDir": "/var/log/pods",
        "volumePluginDir": dir.join("volume-plugins"),
        "containerRuntimeEndpoint": format!("unix://{}", runtime::SOCKET),
        "clusterDomain": "cluster.local",
        // The default is every minute, and tests wait for it when they change a mounted ConfigMap.
        "syncFrequency": "10s",
    });
    let path = dir.join("kubelet.json");
    fs::write(&path, config.to_string()).context("writing the kubelet's configuration")?;
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let kubeconfig = control_plane.kubeconfig(&format!("system:node:{NODE}"));
    let args = [
        format!("--config={}", path.display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--cert-dir={}", dir.join("kubelet-pki").display()),
        format!("--hostname-override={NODE}"),
        format!("--node-ip={}", addresses.join(",")),
    ];
    let (program, log) = (programs.kubelet.clone(), dir.join("kubelet.log"));
    Ok(move || {
        let mut command = Command::new(&program);
        command.args(&args);
        Process::spawn("kubelet", command, &log)
    })
}

fn start_proxy(
    dir: &Path,
    programs: &NodePrograms,
    control_plane: &ControlPlane,
) -> Result<Process> {
    let kubeconfig = control_plane.kubeconfig("system:kube-proxy");
    let mut command = Command::new(&programs.proxy);
    command
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .args([
            "--proxy-mode=nftables",
            &format!("--hostname-override={NODE}"),
        ])
        // Limits of connection tracking are the machine's.
        .args([
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        ]);
    Process::spawn("kube-proxy", command, &dir.join("kube-proxy.log"))
}

fn start_scheduler(
    dir: &Path,
    programs: &NodePrograms,
    control_plane: &ControlPlane,
) -> Result<Process> {
    let kubeconfig = control_plane.kubeconfig("system:kube-scheduler");
    let mut command = Command::new(&programs.scheduler);
    command.arg(format!("--kubeconfig={}", kubeconfig.display()));
    command.args(["--leader-elect=false", "--secure-port=0"]);
    Process::spawn("kube-scheduler", command, &dir.join("kube-scheduler.log"))
}
