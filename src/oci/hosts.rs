//! Where a registry is reached: containerd's `certs.d`, so that a node's files serve as they are.
//!
//! The first of these directories that exists decides: `HOST_PORT_`, `HOST:PORT` (or `HOST`), `_default`. In it, `hosts.toml`
//! names mirrors in the order in which they are asked, and the server that is asked last; without that file, its `*.crt` are
//! the authorities to trust. With no directory the registry itself is asked by HTTPS. Plain HTTP is spoken only to what is
//! written with `http://` here: never by default, not even to localhost.
//!
//! The files are read anew for each pull, so a repaired one needs no restart. `client` (client certificates) and `header` are
//! not supported and logged; every other key that is not described here is ignored, as containerd does.

use std::{
    io,
    path::{Path, PathBuf},
};

use reqwest::Url;
use serde::Deserialize;

/// The host that serves Docker Hub's API.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// A host to ask, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Base of all requests, which ends in `/v2/` unless the file overrides that.
    pub base: Url,
    /// The registry's name, when the host is not the registry itself: mirrors of several registries ask for it.
    pub namespace: Option<String>,
    /// PEM files of authorities to trust beside the system's.
    pub ca: Vec<PathBuf>,
    /// Do not check the certificate.
    pub skip_verify: bool,
    /// Whether it may say what a tag means.
    pub resolve: bool,
    /// Whether it may be asked for content by digest.
    pub pull: bool,
}

/// A file below `certs.d` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct HostsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: HostsProblem,
}

/// What is wrong with a file below `certs.d`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostsProblem {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// It is not TOML of the expected form.
    #[error("{0}")]
    Syntax(String),
    /// A server's address is not a URL.
    #[error("`{0}` is not an `http://` or `https://` address")]
    Address(String),
    /// It holds no certificate, though it should.
    #[error("it holds no PEM certificate: {0}")]
    Certificate(String),
}

/// `hosts.toml`.
#[derive(Deserialize)]
struct HostsFile {
    server: Option<String>,
    #[serde(flatten)]
    settings: Settings,
    /// A table, since the order of the mirrors matters.
    #[serde(default)]
    host: toml::Table,
}

/// What can be said of one host.
#[derive(Deserialize, Default)]
struct Settings {
    ca: Option<OneOrMany>,
    #[serde(default)]
    skip_verify: bool,
    capabilities: Option<Vec<String>>,
    #[serde(default)]
    override_path: bool,
    client: Option<toml::Value>,
    header: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

/// The hosts to ask for images of `registry` (`HOST[:PORT]`), in order; never empty. Reads files.
///
/// # Errors
/// [`HostsError`], which names the file. A broken file is not passed over: what it says may be to stay away from the registry.
pub(crate) fn endpoints(
    certs_dir: Option<&Path>,
    registry: &str,
) -> Result<Vec<Endpoint>, HostsError> {
    let Some(dir) = certs_dir.and_then(|dir| directory(dir, registry)) else {
        return Ok(vec![server(
            registry,
            None,
            &dir_settings(Vec::new()),
            Path::new(""),
        )?]);
    };
    let file = dir.join("hosts.toml");
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let settings = dir_settings(certificates(&dir)?);
            return Ok(vec![server(registry, None, &settings, &file)?]);
        }
        Err(e) => return Err(unreadable(&file, e)),
    };
    parse(&text, registry, &file)
}

/// The directory for a registry, if there is one.
fn directory(certs_dir: &Path, registry: &str) -> Option<PathBuf> {
    let underscored = registry
        .rsplit_once(':')
        .map(|(host, port)| format!("{host}_{port}_"));
    let names = [underscored.as_deref(), Some(registry), Some("_default")];
    names
        .into_iter()
        .flatten()
        .map(|name| certs_dir.join(name))
        .find(|dir| dir.is_dir())
}

/// The authorities of a directory without `hosts.toml`.
fn certificates(dir: &Path) -> Result<Vec<PathBuf>, HostsError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| unreadable(dir, e))? {
        let path = entry.map_err(|e| unreadable(dir, e))?.path();
        if path.extension().is_some_and(|e| e == "crt") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn dir_settings(ca: Vec<PathBuf>) -> Settings {
    Settings {
        ca: Some(OneOrMany::Many(ca)),
        ..Settings::default()
    }
}

fn parse(text: &str, registry: &str, file: &Path) -> Result<Vec<Endpoint>, HostsError> {
    let syntax =
        |e: toml::de::Error| problem(file, HostsProblem::Syntax(first_lines(&e.to_string())));
    let parsed: HostsFile = toml::from_str(text).map_err(syntax)?;
    let mut endpoints = Vec::with_capacity(parsed.host.len() + 1);
    for (address, settings) in parsed.host {
        let settings: Settings = settings.try_into().map_err(syntax)?;
        endpoints.push(endpoint(&address, registry, &settings, file)?);
    }
    let server = server(registry, parsed.server.as_deref(), &parsed.settings, file)?;
    // A file that lists the registry among its own mirrors, to say what its CA is, means that entry.
    if !endpoints.iter().any(|e| e.base == server.base) {
        endpoints.push(server);
    }
    Ok(endpoints)
}

/// The host that is asked last.
fn server(
    registry: &str,
    address: Option<&str>,
    settings: &Settings,
    file: &Path,
) -> Result<Endpoint, HostsError> {
    let own = if registry == "docker.io" {
        DOCKER_HUB_API
    } else {
        registry
    };
    let address = address
        .filter(|a| !a.is_empty())
        .map_or_else(|| format!("https://{own}"), str::to_owned);
    endpoint(&address, registry, settings, file)
}

fn endpoint(
    address: &str,
    registry: &str,
    settings: &Settings,
    file: &Path,
) -> Result<Endpoint, HostsError> {
    let bad = || problem(file, HostsProblem::Address(address.to_owned()));
    // containerd takes an address without a scheme for HTTPS.
    let absolute = if address.contains("://") {
        address.to_owned()
    } else {
        format!("https://{address}")
    };
    let mut base = Url::parse(&absolute).map_err(|_| bad())?;
    if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
        return Err(bad());
    }
    let path = base.path().trim_end_matches('/');
    let path = match path.ends_with("/v2") || settings.override_path {
        true => format!("{path}/"),
        false => format!("{path}/v2/"),
    };
    base.set_path(&path);
    base.set_query(None);
    base.set_fragment(None);
    if settings.client.is_some() || settings.header.is_some() {
        tracing::warn!(file = %file.display(), host = address, "`client` and `header` are not supported and ignored");
    }
    let may = |what: &str| {
        settings
            .capabilities
            .as_ref()
            .is_none_or(|c| c.iter().any(|c| c == what))
    };
    let relative_to = file.parent().unwrap_or(Path::new(""));
    let ca = match &settings.ca {
        None => Vec::new(),
        Some(OneOrMany::One(path)) => vec![relative_to.join(path)],
        Some(OneOrMany::Many(paths)) => paths.iter().map(|p| relative_to.join(p)).collect(),
    };
    let own = authority(&base);
    Ok(Endpoint {
        namespace: (own != registry && !(registry == "docker.io" && own == DOCKER_HUB_API))
            .then(|| registry.to_owned()),
        base,
        ca,
        skip_verify: settings.skip_verify,
        resolve: may("resolve"),
        pull: may("pull"),
    })
}

/// `HOST[:PORT]` of a URL.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// The first lines of a TOML error, which point at the place, on one line.
fn first_lines(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn unreadable(path: &Path, e: io::Error) -> HostsError {
    problem(path, HostsProblem::Unreadable(e))
}

fn problem(path: &Path, problem: HostsProblem) -> HostsError {
    HostsError {
        path: path.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests;
