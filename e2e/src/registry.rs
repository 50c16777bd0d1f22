//! A real registry over TLS that wants a login, on loopback.
//!
//! [`Registry::htpasswd`] takes any of two users everywhere; [`Registry::token`] sends clients to a token server that
//! lets each user into the repositories below their own name only.

mod artifact;
mod log;
mod push;
mod token;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use tokio::sync::OnceCell;

pub use artifact::{Artifact, Layer, Platform, media_type};
pub use log::Request;
pub use push::digest;

use crate::{
    install::{BinDir, Program, installed},
    ports,
    process::Process,
    random, run_dir,
    tls::{self, Authority},
    wait::eventually,
};
use token::TokenServer;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const READY_LIMIT: Duration = Duration::from_secs(30);
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// The least that bcrypt allows: these passwords protect nothing, and each request pays for it.
const BCRYPT_COST: u32 = 4;

const REGISTRY: Program = Program {
    name: "registry",
    package: "github.com/distribution/distribution/v3/cmd/registry",
};

/// Somebody who can log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user name, and with token authentication the prefix of the repositories that are theirs.
    pub name: &'static str,
    /// The password.
    pub password: &'static str,
}

/// Owner of the repositories `alice/*`.
pub const ALICE: User = User {
    name: "alice",
    password: "open:sesame",
};
/// Owner of the repositories `bob/*`.
pub const BOB: User = User {
    name: "bob",
    password: "correct horse battery",
};

impl User {
    /// What `.dockerconfigjson` holds for this user at `registry`, which may have a path.
    #[must_use]
    pub fn docker_config_json(&self, registry: &str) -> String {
        let auth = BASE64_STANDARD.encode(format!("{}:{}", self.name, self.password));
        json!({"auths": {registry: {"username": self.name, "password": self.password, "auth": auth}}}).to_string()
    }
}

enum Auth {
    Htpasswd,
    Token(TokenServer),
}

/// A registry that was started here. Dropping it stops it and leaves its data to the run's directory.
pub struct Registry {
    dir: PathBuf,
    program: PathBuf,
    address: IpAddr,
    port: u16,
    auth: Auth,
    process: Option<Process>,
}

/// Builds the registry, unless it is in the cache.
///
/// # Errors
/// As [`installed`].
pub fn install() -> Result<BinDir> {
    installed("tools", &[REGISTRY])
}

// === impl Registry ===

impl Registry {
    /// The registry that tests share which neither stop it nor look at what others pull; by password.
    ///
    /// # Errors
    /// When it can't be started; the same error at every call.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<std::result::Result<Registry, String>> = OnceCell::const_new();
        let made = SHARED
            .get_or_init(|| async { Self::htpasswd().await.map_err(|error| format!("{error:#}")) })
            .await;
        made.as_ref().map_err(|message| anyhow!("{message}"))
    }

    /// Starts one that takes the users' passwords, for every repository.
    ///
    /// # Errors
    /// When it can't be built or does not start.
    pub async fn htpasswd() -> Result<Self> {
        Self::htpasswd_on(ports::free()?).await
    }

    /// As [`Registry::htpasswd`], on a port of the caller's choice.
    ///
    /// # Errors
    /// When the port is taken, or as above.
    pub async fn htpasswd_on(port: u16) -> Result<Self> {
        Self::new((LOOPBACK, port).into(), async |_| Ok(Auth::Htpasswd)).await
    }

    /// As [`Registry::htpasswd`], on another address of this machine, which its images are named by.
    ///
    /// # Errors
    /// As above.
    pub async fn htpasswd_at(address: IpAddr) -> Result<Self> {
        Self::new((address, ports::free()?).into(), async |_| {
            Ok(Auth::Htpasswd)
        })
        .await
    }

    /// Starts one that demands a token; `alice` gets tokens for `alice/*` only, `bob` for `bob/*` only.
    ///
    /// # Errors
    /// When it can't be built or does not start.
    pub async fn token() -> Result<Self> {
        Self::new((LOOPBACK, ports::free()?).into(), async |dir| {
            Ok(Auth::Token(TokenServer::start(dir).await?))
        })
        .await
    }

    async fn new(
        listen: SocketAddr,
        auth: impl AsyncFnOnce(&Path) -> Result<Auth>,
    ) -> Result<Self> {
        tls::use_ring();
        let program = tokio::task::spawn_blocking(install)
            .await
            .context("building programs")??
            .program(REGISTRY.name);
        let dir = run_dir::subdir("registry")?;
        Authority::new("washlet-e2e registry")?
            .write_server(&dir, &["localhost", "127.0.0.1", &listen.ip().to_string()])?;
        let auth = auth(&dir).await?;
        let mut this = Self {
            dir,
            program,
            address: listen.ip(),
            port: listen.port(),
            auth,
            process: None,
        };
        this.write_htpasswd()?;
        this.write_config()?;
        this.write_certs_d()?;
        this.start().await?;
        Ok(this)
    }

    /// `HOST:PORT`, as image references have it; the host is `localhost` unless another address was wanted.
    #[must_use]
    pub fn host(&self) -> String {
        match self.address {
            LOOPBACK => format!("localhost:{}", self.port),
            address => SocketAddr::new(address, self.port).to_string(),
        }
    }

    /// The reference of an image here.
    #[must_use]
    pub fn image(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.host())
    }

    /// The certificate of its authority.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// A folder in the layout of containerd's `certs.d` that makes clients trust it.
    #[must_use]
    pub fn certs_d(&self) -> PathBuf {
        self.dir.join("certs.d")
    }

    /// Kills it; its port refuses connections until [`Registry::start`].
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it on the port and with the data that it had.
    ///
    /// # Errors
    /// When the port is taken or it does not answer in time.
    pub async fn start(&mut self) -> Result<()> {
        if !ports::is_free(self.port) {
            bail!("port {} is taken, and the registry needs it", self.port);
        }
        let mut command = Command::new(&self.program);
        command
            .arg("serve")
            .arg(self.dir.join("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none");
        let mut process = Process::spawn("registry", command, &self.log_path())?;
        let client = self.client()?;
        let url = self.url("");
        eventually("the registry answers", READY_LIMIT, async || {
            process.check_running()?;
            Ok(client
                .get(&url)
                .send()
                .await
                .map(drop)
                .map_err(|error| format!("{error:?}")))
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }

    /// An HTTP client that trusts it, with no login.
    ///
    /// # Errors
    /// When its certificate can't be read.
    pub fn client(&self) -> Result<reqwest::Client> {
        let ca = fs::read(self.ca()).context("reading the registry's certificate")?;
        let ca = reqwest::Certificate::from_pem(&ca).context("the registry's certificate")?;
        let builder = reqwest::Client::builder()
            .tls_certs_only([ca])
            .timeout(REQUEST_LIMIT)
            .no_proxy();
        builder.build().context("making an HTTP client")
    }

    /// The requests that it has answered, oldest first; those of [`Registry::push`] among them.
    ///
    /// # Errors
    /// When its log can't be read.
    pub fn requests(&self) -> Result<Vec<Request>> {
        log::read(&self.log_path())
    }

    /// How many manifests and blobs of a repository it has handed out.
    ///
    /// # Errors
    /// When its log can't be read.
    pub fn pulls(&self, repository: &str) -> Result<usize> {
        Ok(self
            .requests()?
            .iter()
            .filter(|request| request.is_pull_of(repository))
            .count())
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}/v2/{path}", self.host())
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("registry.log")
    }

    fn write_htpasswd(&self) -> Result<()> {
        let mut lines = String::new();
        for user in [ALICE, BOB] {
            let hash = bcrypt::hash(user.password, BCRYPT_COST).context("hashing a password")?;
            lines.push_str(&format!("{}:{hash}\n", user.name));
        }
        fs::write(self.dir.join("htpasswd"), lines).context("writing htpasswd")
    }

    fn write_config(&self) -> Result<()> {
        let auth = match &self.auth {
            Auth::Htpasswd => {
                json!({"htpasswd": {"realm": "washlet-e2e", "path": self.dir.join("htpasswd")}})
            }
            Auth::Token(server) => server.registry_config(),
        };
        let config = json!({
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": self.dir.join("data")},
                "delete": {"enabled": true},
                "maintenance": {"uploadpurging": {"enabled": false}},
            },
            "http": {
                "addr": SocketAddr::new(self.address, self.port).to_string(),
                "secret": random::word()?,
                "tls": {"certificate": self.dir.join("tls.crt"), "key": self.dir.join("tls.key")},
            },
            "auth": auth,
        });
        fs::write(self.dir.join("config.yml"), config.to_string())
            .context("writing the registry's configuration")
    }

    fn write_certs_d(&self) -> Result<()> {
        let by_address = SocketAddr::new(self.address, self.port).to_string();
        for host in [self.host(), by_address] {
            let dir = self.certs_d().join(&host);
            fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
            fs::copy(self.ca(), dir.join("ca.crt")).context("copying a certificate")?;
            let ca = dir.join("ca.crt");
            let hosts = format!(
                "server = \"https://{host}\"\n\n[host.\"https://{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"{}\"\n",
                ca.display()
            );
            fs::write(dir.join("hosts.toml"), hosts).context("writing hosts.toml")?;
        }
        Ok(())
    }
}
