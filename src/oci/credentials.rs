//! Pull secrets: from the content of a Kubernetes Secret to credentials, and which of them are for an image.
//!
//! A secret is read by its content, whatever its type says: a Docker configuration (`.dockerconfigjson`, `config.json`, or the
//! older `.dockercfg`), `username` and `password`, or `token`. Credential helpers that a configuration names are never run:
//! it was written by a tenant, and a helper is a program on the node.
//!
//! Errors name the secret and the key, never a value. For that reason serde's own messages, which quote the text that they
//! stumble on, are not passed on.

mod matching;

use std::{collections::BTreeMap, fmt};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;

use crate::spec::{Credential, RegistryCredential, Secret};

pub use matching::matching;

/// Keys of a Secret that hold a Docker configuration, in the order in which they are looked for.
const CONFIG_KEYS: [&str; 3] = [".dockerconfigjson", "config.json", ".dockercfg"];

/// A type of Secret whose `token` opens the Kubernetes API: no registry may ever see it.
const SERVICE_ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";

/// Tools pad `auth` or do not; both are read.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A Secret cannot be used to pull.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {problem}")]
pub struct CredentialError {
    /// The secret, as messages name it.
    pub origin: String,
    /// What is wrong with it.
    pub problem: CredentialProblem,
}

/// What makes a Secret unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialProblem {
    /// It has none of the keys that hold credentials.
    #[error(
        "it has no credentials; expected the key `.dockerconfigjson`, or `username` and `password`, or `token` (found {})",
        Keys(found)
    )]
    NoCredentials {
        /// Its keys.
        found: Vec<String>,
    },
    /// One of two keys that belong together is missing.
    #[error("it has the key `{present}` but not `{missing}`")]
    MissingKey {
        /// The key that is there.
        present: &'static str,
        /// The key that is not.
        missing: &'static str,
    },
    /// A value is not text.
    #[error("its key `{key}` is not UTF-8 text")]
    NotText {
        /// The key.
        key: String,
    },
    /// A value that is needed is empty.
    #[error("its key `{key}` is empty")]
    Empty {
        /// The key.
        key: &'static str,
    },
    /// The Docker configuration is not what Docker writes.
    #[error(
        "its Docker configuration is not valid JSON of the expected form (line {line}, column {column})"
    )]
    NotAConfig {
        /// Line of the JSON, from 1.
        line: usize,
        /// Column of the JSON, from 1.
        column: usize,
    },
    /// The Docker configuration has no `auths`, or none with a credential in it.
    #[error(
        "its Docker configuration holds no credential: `auths` has no entry with `auth`, `username` and `password`, \
         `identitytoken` or `registrytoken`{}", if *.helpers { " (credential helpers are never run)" } else { "" }
    )]
    NoEntries {
        /// Whether it names credential helpers instead.
        helpers: bool,
    },
    /// The `auth` of an entry is not base64 of `user:password`.
    #[error("in its Docker configuration, `auth` of `{entry}` is not base64 of `user:password`")]
    BadAuth {
        /// The entry.
        entry: String,
    },
    /// A service account's token.
    #[error(
        "it is a service account's token, which opens the Kubernetes API and must not be sent to a registry"
    )]
    ServiceAccountToken,
}

/// Names of keys, for a message.
struct Keys<'a>(&'a [String]);

impl fmt::Display for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("no key at all"),
            keys => write!(f, "`{}`", keys.join("`, `")),
        }
    }
}

/// A Docker configuration: `config.json`.
#[derive(Deserialize)]
struct Config {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(rename = "credHelpers")]
    cred_helpers: Option<serde::de::IgnoredAny>,
    #[serde(rename = "credsStore")]
    creds_store: Option<serde::de::IgnoredAny>,
}

/// One registry of a Docker configuration.
#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// Reads the content of a Secret. `kind` is its type (`kubernetes.io/dockerconfigjson`, `Opaque`, …), which only decides what
/// is refused; `origin` names it in messages, as `secret default/my-registry`.
///
/// # Errors
/// [`CredentialError`], when it holds no credential or a broken one. Other secrets are not affected by that.
pub fn from_secret(
    kind: &str,
    data: &BTreeMap<String, Vec<u8>>,
    origin: &str,
) -> Result<Vec<RegistryCredential>, CredentialError> {
    if kind == SERVICE_ACCOUNT_TOKEN {
        return Err(error(origin, CredentialProblem::ServiceAccountToken));
    }
    parse_opaque(data, origin)
}

/// Reads the keys of a Secret of any type: a Docker configuration, else `username` and `password` with an optional `registry`,
/// else `token` with an optional `registry`. Without `registry` the credential is for the registry of whatever image it is
/// used with.
///
/// A line break at the end of a value is dropped: it comes from `kubectl create secret --from-file`, never from a password.
///
/// # Errors
/// [`CredentialError`], when none of these is there, or not whole.
pub fn parse_opaque(
    data: &BTreeMap<String, Vec<u8>>,
    origin: &str,
) -> Result<Vec<RegistryCredential>, CredentialError> {
    if let Some(config) = CONFIG_KEYS.iter().find_map(|key| data.get(*key)) {
        return parse_docker_config(config, origin);
    }
    let text = |key: &'static str| text(data, key).map_err(|problem| error(origin, problem));
    let credential = match (text("username")?, text("password")?, text("token")?) {
        (Some(username), Some(password), _) => Credential::Basic {
            username: username.to_owned(),
            password: Secret::new(password),
        },
        (None, None, Some(token)) => Credential::Bearer(Secret::new(token)),
        (Some(_), None, _) => return Err(missing(origin, "username", "password")),
        (None, Some(_), _) => return Err(missing(origin, "password", "username")),
        (None, None, None) => {
            let found = data.keys().cloned().collect();
            return Err(error(origin, CredentialProblem::NoCredentials { found }));
        }
    };
    let scope = text("registry")?.map(str::to_owned);
    Ok(vec![RegistryCredential {
        scope,
        credential,
        origin: origin.to_owned(),
    }])
}

/// Reads a Docker configuration, `{"auths": {…}}` or the older form that is only the inner map. Entries come in the kubelet's
/// order, which is reverse lexical: an exact host before a glob, a deeper path before a shorter one. An entry without a
/// credential (Docker writes `{}` where a helper keeps it) is passed over if another has one.
///
/// # Errors
/// [`CredentialError`], when the JSON is not such a configuration, when an entry's `auth` cannot be decoded, or when no entry
/// has a credential.
pub fn parse_docker_config(
    json: &[u8],
    origin: &str,
) -> Result<Vec<RegistryCredential>, CredentialError> {
    let not_a_config = |e: serde_json::Error| {
        error(
            origin,
            CredentialProblem::NotAConfig {
                line: e.line(),
                column: e.column(),
            },
        )
    };
    let config: Config = serde_json::from_slice(json).map_err(not_a_config)?;
    let helpers = config.cred_helpers.is_some() || config.creds_store.is_some();
    let entries = match config.auths {
        Some(entries) => entries,
        None if helpers => BTreeMap::new(),
        None => serde_json::from_slice(json).map_err(not_a_config)?,
    };
    let mut credentials = Vec::with_capacity(entries.len());
    for (key, entry) in entries.into_iter().rev() {
        let Some(entry) = entry else { continue };
        let credential = entry
            .credential()
            .map_err(|BadAuth| error(origin, CredentialProblem::BadAuth { entry: key.clone() }))?;
        if let Some(credential) = credential {
            credentials.push(RegistryCredential {
                scope: Some(key),
                credential,
                origin: origin.to_owned(),
            });
        }
    }
    if credentials.is_empty() {
        return Err(error(origin, CredentialProblem::NoEntries { helpers }));
    }
    Ok(credentials)
}

/// An entry's `auth` cannot be decoded.
struct BadAuth;

impl Entry {
    /// The entry's credential, if it has one. A token comes before a password, since Docker writes a token only after the
    /// registry handed it out; `auth` comes before `username` and `password`, as in the kubelet.
    fn credential(self) -> Result<Option<Credential>, BadAuth> {
        let given = |text: Option<String>| text.filter(|t| !t.is_empty());
        if let Some(token) = given(self.registrytoken) {
            return Ok(Some(Credential::Bearer(Secret::new(token))));
        }
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Credential::Identity(Secret::new(token))));
        }
        if let Some(auth) = given(self.auth) {
            let (username, password) = decode_auth(&auth).ok_or(BadAuth)?;
            return Ok(Some(Credential::Basic { username, password }));
        }
        Ok(given(self.username)
            .zip(given(self.password))
            .map(|(username, password)| Credential::Basic {
                username,
                password: Secret::new(password),
            }))
    }
}

/// `auth`: base64 of `user:password`, where the password may hold further colons. Docker pads with NUL bytes.
fn decode_auth(auth: &str) -> Option<(String, Secret)> {
    let text = String::from_utf8(BASE64.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((
        username.to_owned(),
        Secret::new(password.trim_end_matches('\0')),
    ))
}

/// The text of a key, if it is there.
fn text<'a>(
    data: &'a BTreeMap<String, Vec<u8>>,
    key: &'static str,
) -> Result<Option<&'a str>, CredentialProblem> {
    let Some(value) = data.get(key) else {
        return Ok(None);
    };
    let text = str::from_utf8(value).map_err(|_| CredentialProblem::NotText {
        key: key.to_owned(),
    })?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(CredentialProblem::Empty { key }),
        text => Ok(Some(text)),
    }
}

fn missing(origin: &str, present: &'static str, missing: &'static str) -> CredentialError {
    error(origin, CredentialProblem::MissingKey { present, missing })
}

fn error(origin: &str, problem: CredentialProblem) -> CredentialError {
    CredentialError {
        origin: origin.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests;
