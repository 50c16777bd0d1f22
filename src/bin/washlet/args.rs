//! The command line. A flag wins over its environment variable.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use wash_runtime::washlet::{agent, run};

/// Run WebAssembly components as Kubernetes workloads.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,

    /// How to write logs: text on a terminal, else JSON. What to log is `RUST_LOG`'s, `info` by default.
    #[arg(long, global = true, value_enum, help_heading = "Logging")]
    pub log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the Workloads of one node; what the DaemonSet starts.
    Agent(AgentArgs),
    /// Run the Workloads of some YAML files on this machine, without a cluster.
    Run(RunArgs),
    /// Print the CustomResourceDefinitions as YAML.
    Crds(CrdArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, ClapArgs)]
pub struct AgentArgs {
    /// Name of the node: the id of this host.
    #[arg(long, env = "NODE_NAME", help_heading = "Kubernetes")]
    pub node_name: String,

    /// Namespace of the agent's own Host and Lease [default: the kubeconfig's].
    #[arg(long, env = "POD_NAMESPACE", help_heading = "Kubernetes")]
    pub system_namespace: Option<String>,

    /// Kubeconfig [default: the pod's service account].
    #[arg(long, env = "KUBECONFIG", help_heading = "Kubernetes")]
    pub kubeconfig: Option<PathBuf>,

    /// Run only the Workloads of this namespace; may be repeated [default: all].
    #[arg(long = "namespace", help_heading = "Kubernetes")]
    pub namespaces: Vec<String>,

    /// Where Workloads are served; port 0 takes a free one.
    #[arg(long, default_value = "0.0.0.0:8080", help_heading = "Listeners")]
    pub http_listen: SocketAddr,

    /// Where /livez, /readyz and /metrics are.
    #[arg(long, default_value = "127.0.0.1:8081", value_parser = admin_address, help_heading = "Listeners")]
    pub admin_listen: SocketAddr,

    /// Where images and compiled code are kept.
    #[arg(long, default_value = "/var/lib/washlet", help_heading = "Storage")]
    pub state_dir: PathBuf,

    /// Certificates and mirrors of registries, in containerd's `certs.d` layout.
    #[arg(long, help_heading = "Storage")]
    pub registry_certs_dir: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct RunArgs {
    /// Files, folders, or `-` for standard input.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,

    /// Where Workloads are served; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8000")]
    pub http_listen: SocketAddr,

    /// Where images and compiled code are kept [default: a temporary folder].
    #[arg(long)]
    pub state_dir: Option<PathBuf>,

    /// Certificates and mirrors of registries, in containerd's `certs.d` layout.
    #[arg(long)]
    pub registry_certs_dir: Option<PathBuf>,

    /// Take over changed files; the default.
    #[arg(long, overrides_with = "no_watch")]
    pub watch: bool,

    /// Leave changed files alone.
    #[arg(long, overrides_with = "watch")]
    pub no_watch: bool,
}

#[derive(Debug, ClapArgs)]
pub struct CrdArgs {
    /// Only this kind.
    #[arg(long, value_parser = ["Workload", "Host"], ignore_case = true)]
    pub kind: Option<String>,
}

/// As a chart writes it, `:8081` is every address.
fn admin_address(text: &str) -> Result<SocketAddr, String> {
    let text = if text.starts_with(':') {
        format!("0.0.0.0{text}")
    } else {
        text.to_owned()
    };
    text.parse()
        .map_err(|e: std::net::AddrParseError| format!("{e}; write it as 127.0.0.1:8081 or :8081"))
}

impl AgentArgs {
    pub fn config(self) -> agent::Config {
        let Self {
            node_name,
            system_namespace,
            kubeconfig,
            namespaces,
            http_listen,
            admin_listen,
            state_dir,
            registry_certs_dir,
        } = self;
        agent::Config {
            node_name,
            system_namespace,
            kubeconfig,
            namespaces,
            http_listen,
            admin_listen,
            state_dir,
            registry_certs_dir,
        }
    }
}

impl RunArgs {
    pub fn config(self) -> run::Config {
        let Self {
            paths,
            http_listen,
            state_dir,
            registry_certs_dir,
            watch: _,
            no_watch,
        } = self;
        run::Config {
            paths,
            http_listen,
            state_dir,
            registry_certs_dir,
            watch: !no_watch,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_port_alone_is_every_address() {
        assert_eq!(
            admin_address(":8081").map(|a| a.to_string()),
            Ok("0.0.0.0:8081".to_owned())
        );
        assert!(admin_address("8081").is_err());
    }
}
