//! Credentials of a registry. A secret's text is shown by nothing but [`Secret::expose`].

use std::fmt;

/// A text that must not be printed: its `Debug` shows only that it is there.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password.
    Basic {
        /// The user.
        username: String,
        /// The password, which may contain `:`.
        password: Secret,
    },
    /// A token sent as it is (`registrytoken`, or the `token` key of an Opaque secret).
    Bearer(Secret),
    /// An OAuth2 refresh token (`identitytoken`), exchanged at the registry's token server.
    Identity(Secret),
}

/// A credential, what it is for, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryCredential {
    /// The key of a Docker configuration, `host[:port][/path]` with globs in the host's labels; none means: whatever registry
    /// the image is on.
    pub scope: Option<String>,
    /// How to log in.
    pub credential: Credential,
    /// Where it came from, for messages: `secret default/my-registry`.
    pub origin: String,
}
