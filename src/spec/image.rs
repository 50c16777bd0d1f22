//! Names of images and digests.
//!
//! A reference is read as containerd and Docker read it, with one difference: a first part in upper case is an error here,
//! where they take it for the name of a host.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The registry of a reference that names none.
const DEFAULT_REGISTRY: &str = "docker.io";

/// The tag of a reference that has neither tag nor digest.
const DEFAULT_TAG: &str = "latest";

/// Longest repository, in bytes: the limit of the reference grammar that registries share.
const MAX_REPOSITORY: usize = 255;

/// Longest tag, in bytes.
const MAX_TAG: usize = 128;

const BAD_DIGEST: &str = "a digest is `sha256:` and 64 lower-case hexadecimal digits";

/// A SHA-256 digest, written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Arc<str>);

impl Digest {
    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(&Sha256::digest(bytes))
    }

    /// The digest from a finished SHA-256 hash.
    #[must_use]
    pub fn from_hash(hash: &[u8]) -> Self {
        use fmt::Write as _;
        let mut text = String::from("sha256:");
        for byte in hash {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text.into())
    }

    /// The 64 hexadecimal digits, a safe file name.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or_default()
    }

    /// The whole text, `sha256:…`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = ParseImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("sha256:") {
            Some(hex)
                if hex.len() == 64
                    && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(ParseImageError::new(text, BAD_DIGEST)),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A text is not the name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: {why}")]
pub struct ParseImageError {
    text: String,
    why: &'static str,
}

impl ParseImageError {
    fn new(text: &str, why: &'static str) -> Self {
        Self {
            text: text.to_owned(),
            why,
        }
    }
}

/// An image's name, `[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]`, with defaults as containerd has them: `docker.io`, `library/`, `latest`.
///
/// Two references that mean the same are equal: the host is kept in lower case, and `index.docker.io` as `docker.io`.
/// [`Display`](fmt::Display) writes the reference with its defaults, and parsing that gives the same reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageRef {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageRef {
    /// `HOST[:PORT]`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path within the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Registry and repository, without tag and digest: `HOST[:PORT]/REPOSITORY`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag; none when the reference names only a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, if the reference pins it.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl FromStr for ImageRef {
    type Err = ParseImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|why| ParseImageError::new(text, why))
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<ImageRef, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.contains(char::is_whitespace) {
        return Err("it contains white space");
    }
    if text.contains("://") {
        return Err("a reference has no scheme; leave out all up to `://`");
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (
            name,
            Some(digest.parse::<Digest>().map_err(|_| BAD_DIGEST)?),
        ),
        None => (text, None),
    };
    let (registry, path) = split_registry(name)?;
    let (path, tag) = match path.split_once(':') {
        Some((path, tag)) => (path, Some(check_tag(tag)?.to_owned())),
        None => (path, None),
    };
    check_repository(path)?;
    let repository = match registry.as_str() {
        DEFAULT_REGISTRY if !path.contains('/') => format!("library/{path}"),
        _ => path.to_owned(),
    };
    let tag = tag.or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
    Ok(ImageRef {
        registry,
        repository,
        tag,
        digest,
    })
}

/// The registry, or the default one, and what follows it. The first part names a registry if it has a dot or a port, or is
/// `localhost`; a name of one part is never a registry (`app:5000` has a tag, not a port).
fn split_registry(name: &str) -> Result<(String, &str), &'static str> {
    match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
            check_host(host)?;
            let host = host.to_ascii_lowercase();
            let host = if host == "index.docker.io" {
                DEFAULT_REGISTRY.to_owned()
            } else {
                host
            };
            Ok((host, path))
        }
        _ => Ok((DEFAULT_REGISTRY.to_owned(), name)),
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest
                .split_once(']')
                .ok_or("the IPv6 address of the registry lacks its `]`")?;
            address
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| "the registry's IPv6 address is not one")?;
            (None, port)
        }
        None => {
            let end = host.find(':').unwrap_or(host.len());
            let (name, port) = host.split_at(end);
            (Some(name), port)
        }
    };
    // `parse` alone would take `+80`.
    let number = |p: &str| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok();
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(number) {
        return Err("the registry's port is not a number from 0 to 65535");
    }
    let label = |l: &str| {
        let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        ends(l.as_bytes().first())
            && ends(l.as_bytes().last())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    match name {
        Some(name) if !name.split('.').all(label) => Err("the registry is not a host name"),
        _ => Ok(()),
    }
}

fn check_repository(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("it names no repository");
    }
    if path.len() > MAX_REPOSITORY {
        return Err("its repository is longer than 255 bytes");
    }
    if path.contains(|c: char| c.is_ascii_uppercase()) {
        return Err("a repository is written in lower case");
    }
    if !path.split('/').all(is_component) {
        return Err(
            "each part of a repository is lower-case letters and digits, joined by `.`, `_`, `__` or dashes",
        );
    }
    Ok(())
}

/// Whether `part` is alphanumeric words joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(part: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let edges = part.starts_with(word) && part.ends_with(word);
    edges
        && part
            .split(word)
            .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.chars().all(|c| c == '-'))
}

fn check_tag(tag: &str) -> Result<&str, &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match tag.bytes().next() {
        None => Err("its tag is empty"),
        Some(first) if !word(first) => Err("a tag begins with a letter, a digit or `_`"),
        _ if tag.len() > MAX_TAG => Err("its tag is longer than 128 bytes"),
        _ if !tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-')) => {
            Err("a tag has only letters, digits, `_`, `.` and `-`")
        }
        _ => Ok(tag),
    }
}

/// When to ask the registry for an image that may be on disk already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PullPolicy {
    /// Ask at every start; what is held is not fetched again.
    Always,
    /// Ask only when the reference has never been resolved here.
    IfNotPresent,
    /// Never ask.
    Never,
}

impl PullPolicy {
    /// The policy of a workload that names none: [`Always`](Self::Always) for the tag `latest`, which is also the default tag,
    /// and [`IfNotPresent`](Self::IfNotPresent) for all else.
    #[must_use]
    pub fn default_for(reference: &ImageRef) -> Self {
        match reference.tag() {
            Some(DEFAULT_TAG) => Self::Always,
            _ => Self::IfNotPresent,
        }
    }
}

#[cfg(test)]
mod tests;
