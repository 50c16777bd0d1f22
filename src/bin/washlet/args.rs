//! The command line. A flag wins over its environment variable.

mod values;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use wash_runtime::{
    engine::CompilerProcess,
    plugin::wasi_http::TlsFiles,
    spec::BlockedNetwork,
    washlet::{Http, MaxBody, agent, controller, probe, run},
};

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
    Agent(Box<AgentArgs>),
    /// Give Workloads their hosts, keep their replicas, and lead Services to them; what the Deployment starts.
    Controller(ControllerArgs),
    /// Ask URLs until all of them answer well; what `helm test` runs.
    Probe(ProbeArgs),
    /// Run the Workloads of some YAML files on this machine, without a cluster.
    Run(RunArgs),
    /// Print the CustomResourceDefinitions as YAML.
    Crds(CrdArgs),
    /// Compile one component: what this program starts of itself.
    #[command(hide = true)]
    Compile {
        /// As the library says it.
        order: Vec<String>,
    },
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

    #[command(flatten)]
    pub http: HttpArgs,

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

    /// Network that no component may connect to, whatever its allowedHosts say: in CIDR notation, or `private` for every address
    /// that is not a public one. May be repeated or a list with commas.
    #[arg(
        long = "block-network",
        env = "WASHLET_BLOCK_NETWORKS",
        value_name = "CIDR",
        value_delimiter = ',',
        help_heading = "Egress"
    )]
    pub block_networks: Vec<BlockedNetwork>,

    /// A word for where this host is, for example a region: Workloads choose by it with `spec.environment`.
    #[arg(long, env = "WASHLET_ENVIRONMENT", value_name = "WORD", value_parser = word, help_heading = "Scheduling")]
    pub environment: Option<String>,

    /// A label of this host, beside those of its Node: Workloads choose by them with `spec.hostSelector`. May be repeated.
    #[arg(long = "host-label", value_name = "KEY=VALUE", value_parser = label, help_heading = "Scheduling")]
    pub host_labels: Vec<(String, String)>,

    /// What Workloads may use in all, for example `4Gi` [default: this process's or else the machine's limit, less 128Mi and
    /// --compile-memory].
    #[arg(
        long,
        env = "WASHLET_MEMORY",
        value_name = "QUANTITY",
        help_heading = "Scheduling"
    )]
    pub memory: Option<agent::Memory>,

    /// What compiling may use in all, for example `1Gi`: three quarters of it for a component that needs much, as one with an
    /// interpreter in it does [default: half of what there is beside 128Mi, and at most 1Gi].
    #[arg(
        long,
        env = "WASHLET_COMPILE_MEMORY",
        value_name = "QUANTITY",
        help_heading = "Scheduling"
    )]
    pub compile_memory: Option<agent::Memory>,

    /// Where images and compiled code are kept.
    #[arg(long, default_value = "/var/lib/washlet", help_heading = "Storage")]
    pub state_dir: PathBuf,

    /// Certificates and mirrors of registries, in containerd's `certs.d` layout.
    #[arg(long, help_heading = "Storage")]
    pub registry_certs_dir: Option<PathBuf>,

    /// What compiled code may take on disk: beyond that, what has not been used for longest is removed [default: 4Gi].
    #[arg(
        long,
        env = "WASHLET_CACHE_SPACE",
        value_name = "QUANTITY",
        help_heading = "Storage"
    )]
    pub cache_space: Option<agent::Memory>,

    /// What all ephemeral volumes may hold together, for example `8Gi`; what is more fails with `insufficient-space` [default:
    /// only each has a limit].
    #[arg(
        long,
        env = "WASHLET_VOLUME_SPACE",
        value_name = "QUANTITY",
        help_heading = "Storage"
    )]
    pub volume_space: Option<agent::Memory>,

    /// Allow hostPath volumes below this directory; may be repeated [default: none].
    #[arg(long = "host-path-root", value_name = "DIR", help_heading = "Storage")]
    pub host_path_roots: Vec<PathBuf>,

    /// Let components connect to this machine's loopback, at the ports that they name in `allowedHostLoopbackPorts`.
    #[arg(long, env = "WASHLET_ALLOW_HOST_LOOPBACK", help_heading = "Grants")]
    pub allow_host_loopback: bool,
}

/// What `agent` and `run` have in common.
#[derive(Debug, ClapArgs)]
pub struct HttpArgs {
    /// Where Workloads are served by HTTPS too; needs --tls-cert and --tls-key.
    #[arg(
        long,
        env = "WASHLET_HTTPS_LISTEN",
        value_name = "ADDR",
        requires_all = ["tls_cert", "tls_key"],
        help_heading = "Listeners"
    )]
    pub https_listen: Option<SocketAddr>,

    /// The certificate for HTTPS, in PEM, followed by those that lead to its authority. Read again when it changes.
    #[arg(
        long,
        env = "WASHLET_TLS_CERT",
        value_name = "FILE",
        requires = "https_listen",
        help_heading = "Listeners"
    )]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key, in PEM and not encrypted. Read again when it changes.
    #[arg(
        long,
        env = "WASHLET_TLS_KEY",
        value_name = "FILE",
        requires = "https_listen",
        help_heading = "Listeners"
    )]
    pub tls_key: Option<PathBuf>,

    /// Largest body of a request; what is larger gets 413.
    #[arg(
        long,
        env = "WASHLET_MAX_BODY",
        value_name = "QUANTITY",
        default_value = "64Mi",
        help_heading = "Listeners"
    )]
    pub max_body: MaxBody,
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
    /// YAML files, folders of them, or `-` for standard input.
    #[arg(required = true, value_name = "FILE|FOLDER|-")]
    pub paths: Vec<PathBuf>,

    /// Where Workloads are served; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8000")]
    pub http_listen: SocketAddr,

    #[command(flatten)]
    pub http: HttpArgs,

    /// Where images and compiled code are kept [default: a temporary folder].
    #[arg(long)]
    pub state_dir: Option<PathBuf>,

    /// Certificates and mirrors of registries, in containerd's `certs.d` layout.
    #[arg(long)]
    pub registry_certs_dir: Option<PathBuf>,

    /// What compiled code may take on disk: beyond that, what has not been used for longest is removed [default: 4Gi].
    #[arg(long, value_name = "QUANTITY")]
    pub cache_space: Option<agent::Memory>,

    /// Allow hostPath volumes below this directory; may be repeated [default: none].
    #[arg(long = "host-path-root", value_name = "DIR")]
    pub host_path_roots: Vec<PathBuf>,

    /// Let components connect to this machine's loopback, at the ports that they name in `allowedHostLoopbackPorts`.
    #[arg(long)]
    pub allow_host_loopback: bool,

    /// Network that no component may connect to, whatever its allowedHosts say: in CIDR notation, or `private` for every address
    /// that is not a public one. May be repeated or a list with commas [default: none].
    #[arg(long = "block-network", value_name = "CIDR", value_delimiter = ',')]
    pub block_networks: Vec<BlockedNetwork>,

    /// Take over changed files; the default.
    #[arg(long, overrides_with = "no_watch")]
    pub watch: bool,

    /// Leave changed files alone. If all that there is to run are jobs, each is run once (unless `restartPolicy` says
    /// otherwise), and the command ends with the exit code of the first that failed, else with 0. What cannot begin counts as
    /// failed with 1.
    #[arg(long, overrides_with = "watch")]
    pub no_watch: bool,
}

#[derive(Debug, ClapArgs)]
pub struct CrdArgs {
    /// Only this kind.
    #[arg(long, value_parser = ["Workload", "WorkloadReplicaSet", "WorkloadDeployment", "Host", "Artifact"], ignore_case = true)]
    pub kind: Option<String>,
}

impl HttpArgs {
    fn config(self, listen: SocketAddr) -> Http {
        let Self {
            https_listen,
            tls_cert,
            tls_key,
            max_body,
        } = self;
        // All or none of them is given, or this was not reached.
        let https = https_listen.zip(tls_cert.zip(tls_key));
        Http {
            https: https
                .map(|(address, (certificate, key))| (address, TlsFiles { certificate, key })),
            max_body,
            ..Http::new(listen)
        }
    }
}

impl AgentArgs {
    pub fn config(self) -> agent::Config {
        let Self {
            node_name,
            system_namespace,
            kubeconfig,
            namespaces,
            http_listen,
            http,
            admin_listen,
            advertise_addresses,
            environment,
            host_labels,
            memory,
            compile_memory,
            state_dir,
            registry_certs_dir,
            cache_space,
            volume_space,
            host_path_roots,
            allow_host_loopback,
            block_networks,
        } = self;
        agent::Config {
            compiler: compiler(),
            compile_memory,
            node_name,
            system_namespace,
            kubeconfig,
            namespaces,
            http: http.config(http_listen),
            admin_listen,
            state_dir,
            registry_certs_dir,
            cache_space,
            volume_space,
            host_path_roots,
            allow_host_loopback,
            advertise_addresses,
            block_networks,
            environment: environment.filter(|word| !word.is_empty()),
            host_labels: host_labels.into_iter().collect(),
            memory,
        }
    }
}

/// This program once more, for each component.
fn compiler() -> Option<CompilerProcess> {
    CompilerProcess::this_program(["compile"]).ok()
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
            http,
            state_dir,
            registry_certs_dir,
            cache_space,
            host_path_roots,
            allow_host_loopback,
            block_networks,
            watch: _,
            no_watch,
        } = self;
        run::Config {
            // Nobody else's components are compiled here.
            compiler: compiler().map(|compiler| {
                compiler
                    .max_memory(agent::Memory::half_of_this_machine().bytes())
                    .max_time(Duration::from_secs(3600))
            }),
            paths,
            http: http.config(http_listen),
            state_dir,
            registry_certs_dir,
            cache_space,
            host_path_roots,
            allow_host_loopback,
            block_networks,
            watch: !no_watch,
            screen: None,
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
    fn run_without_a_path_says_what_to_give() {
        let error = Args::try_parse_from(["washlet", "run"]).expect_err("no path");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("<FILE|FOLDER|->"), "{error}");
    }

    #[test]
    fn networks_are_blocked_by_run_as_by_the_agent() {
        let arguments = "washlet run app.yaml --block-network=private --block-network=192.0.2.0/24,2001:db8::/32";
        let args = Args::try_parse_from(arguments.split_whitespace()).expect("good");
        let Command::Run(run) = args.command else {
            unreachable!("a run")
        };
        assert_eq!(run.config().block_networks.len(), 3);
        let error = Args::try_parse_from(["washlet", "run", "app.yaml", "--block-network=10.0.0"]);
        let text = error.expect_err("no network").to_string();
        assert!(text.contains("`private`"), "{text}");
    }

    #[test]
    fn flags_of_the_agent_are_read() {
        let arguments = "washlet agent --node-name=n --advertise-address=10.0.0.1,fd00::1 --memory=1Gi \
                         --host-label=a=1 --host-label=b=2 --environment=eu --allow-host-loopback \
                         --block-network=private --block-network=10.0.0.0/8";
        let args = Args::try_parse_from(arguments.split_whitespace()).expect("good");
        let Command::Agent(agent) = args.command else {
            unreachable!("an agent")
        };
        let config = agent.config();
        assert_eq!(config.advertise_addresses.len(), 2);
        assert_eq!(config.host_labels.len(), 2);
        assert!(config.allow_host_loopback);
        assert_eq!(config.block_networks.len(), 2);
        assert_eq!(config.environment.as_deref(), Some("eu"));
        assert_eq!(
            config.memory.map(|m| m.to_string()).as_deref(),
            Some("1048576Ki")
        );
        for (flag, part) in [
            ("--advertise-address=host", "--advertise-address"),
            ("--memory=1GB", "64Mi"),
            ("--compile-memory=1GB", "64Mi"),
            ("--host-label=a", "KEY=VALUE"),
            ("--environment=a b", "no word"),
            ("--https-listen=127.0.0.1:0", "--tls-cert"),
            ("--tls-key=/key", "--https-listen"),
            ("--max-body=1GB", "64Mi"),
            ("--cache-space=1GB", "64Mi"),
            ("--block-network=10.0.0", "`private`"),
        ] {
            let error = Args::try_parse_from(["washlet", "agent", "--node-name=n", flag]);
            let text = error.expect_err(flag).to_string();
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn https_needs_its_files() {
        let with = |flags: &str| {
            let arguments = format!("washlet run here {flags}");
            let args = Args::try_parse_from(arguments.split_whitespace())?;
            let Command::Run(run) = args.command else {
                unreachable!("a run")
            };
            Ok::<_, clap::Error>(run.config().http)
        };
        assert_eq!(with("").expect("good").https, None);
        let all = "--https-listen=127.0.0.1:8443 --tls-cert=/c --tls-key=/k --max-body=1Mi";
        let http = with(all).expect("good");
        let files = TlsFiles {
            certificate: "/c".into(),
            key: "/k".into(),
        };
        let address = "127.0.0.1:8443".parse().expect("an address");
        assert_eq!(http.https, Some((address, files)));
        assert_eq!(Ok(http.max_body), "1048576".parse());
        for missing in all.split_whitespace().take(3) {
            let error = with(&all.replace(missing, "")).expect_err(missing);
            let flag = missing.split('=').next().unwrap_or_default();
            assert!(error.to_string().contains(flag), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
