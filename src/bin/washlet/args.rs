//! The command line. A flag wins over its environment variable.

mod values;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use wash_runtime::washlet::{agent, controller, probe, run};

use self::values::{admin_address, label, time, word};

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
    /// Give Workloads their hosts, keep their replicas, and lead Services to them; what the Deployment starts.
    Controller(ControllerArgs),
    /// Ask URLs until all of them answer well; what `helm test` runs.
    Probe(ProbeArgs),
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

    /// Where Workloads are served; port 0 takes a free one, and `[::]` is IPv4 too.
    #[arg(long, default_value = "0.0.0.0:8080", help_heading = "Listeners")]
    pub http_listen: SocketAddr,

    /// Where /livez, /readyz and /metrics are.
    #[arg(long, default_value = "127.0.0.1:8081", value_parser = admin_address, help_heading = "Listeners")]
    pub admin_listen: SocketAddr,

    /// Address at which others reach this host, at most one of each family; may be repeated or a list with commas
    /// [default: the address of --http-listen, if it is one].
    #[arg(
        long = "advertise-address",
        env = "POD_IPS",
        value_name = "IP",
        value_delimiter = ',',
        help_heading = "Listeners"
    )]
    pub advertise_addresses: Vec<IpAddr>,

    /// A word for where this host is, for example a region: Workloads choose by it with `spec.environment`.
    #[arg(long, env = "WASHLET_ENVIRONMENT", value_name = "WORD", value_parser = word, help_heading = "Scheduling")]
    pub environment: Option<String>,

    /// A label of this host, beside those of its Node: Workloads choose by them with `spec.hostSelector`. May be repeated.
    #[arg(long = "host-label", value_name = "KEY=VALUE", value_parser = label, help_heading = "Scheduling")]
    pub host_labels: Vec<(String, String)>,

    /// What Workloads may use in all, for example `4Gi` [default: this process's or else the machine's limit, less 128Mi].
    #[arg(
        long,
        env = "WASHLET_MEMORY",
        value_name = "QUANTITY",
        help_heading = "Scheduling"
    )]
    pub memory: Option<agent::Memory>,

    /// Where images and compiled code are kept.
    #[arg(long, default_value = "/var/lib/washlet", help_heading = "Storage")]
    pub state_dir: PathBuf,

    /// Certificates and mirrors of registries, in containerd's `certs.d` layout.
    #[arg(long, help_heading = "Storage")]
    pub registry_certs_dir: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct ProbeArgs {
    /// What to ask: each must answer with a status from 200 to 299.
    #[arg(required = true, value_name = "URL")]
    pub urls: Vec<probe::Url>,

    /// How long to ask again before giving up: seconds, or with a unit as `500ms`, `60s` or `2m`.
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = time)]
    pub wait: Duration,
}

#[derive(Debug, ClapArgs)]
pub struct ControllerArgs {
    /// Kubeconfig [default: the pod's service account].
    #[arg(long, env = "KUBECONFIG", help_heading = "Kubernetes")]
    pub kubeconfig: Option<PathBuf>,

    /// Look only after this namespace; may be repeated [default: all].
    #[arg(long = "namespace", help_heading = "Kubernetes")]
    pub namespaces: Vec<String>,

    /// Namespace of the controller's Lease, and of the Hosts and Leases of the agents [default: the kubeconfig's].
    #[arg(long, env = "POD_NAMESPACE", help_heading = "Kubernetes")]
    pub lease_namespace: Option<String>,

    /// Where /livez, /readyz and /metrics are.
    #[arg(long, default_value = "127.0.0.1:8081", value_parser = admin_address, help_heading = "Listeners")]
    pub admin_listen: SocketAddr,
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
    #[arg(long, value_parser = ["Workload", "WorkloadReplicaSet", "WorkloadDeployment", "Host", "Artifact"], ignore_case = true)]
    pub kind: Option<String>,
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
            advertise_addresses,
            environment,
            host_labels,
            memory,
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
            advertise_addresses,
            environment: environment.filter(|word| !word.is_empty()),
            host_labels: host_labels.into_iter().collect(),
            memory,
        }
    }
}

impl ProbeArgs {
    pub fn config(self) -> probe::Config {
        let Self { urls, wait } = self;
        probe::Config { urls, wait }
    }
}

impl ControllerArgs {
    pub fn config(self) -> controller::Config {
        let Self {
            kubeconfig,
            namespaces,
            lease_namespace,
            admin_listen,
        } = self;
        controller::Config {
            kubeconfig,
            namespaces,
            admin_listen,
            lease_namespace,
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
    fn flags_of_the_agent_are_read() {
        let arguments = "washlet agent --node-name=n --advertise-address=10.0.0.1,fd00::1 --memory=1Gi \
                         --host-label=a=1 --host-label=b=2 --environment=eu";
        let args = Args::try_parse_from(arguments.split_whitespace()).expect("good");
        let Command::Agent(agent) = args.command else {
            unreachable!("an agent")
        };
        let config = agent.config();
        assert_eq!(config.advertise_addresses.len(), 2);
        assert_eq!(config.host_labels.len(), 2);
        assert_eq!(config.environment.as_deref(), Some("eu"));
        assert_eq!(
            config.memory.map(|m| m.to_string()).as_deref(),
            Some("1048576Ki")
        );
        for (flag, part) in [
            ("--advertise-address=host", "--advertise-address"),
            ("--memory=1GB", "64Mi"),
            ("--host-label=a", "KEY=VALUE"),
            ("--environment=a b", "no word"),
        ] {
            let error = Args::try_parse_from(["washlet", "agent", "--node-name=n", flag]);
            let text = error.expect_err(flag).to_string();
            assert!(text.contains(part), "{text}");
        }
    }
}
