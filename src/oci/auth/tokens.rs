//! What registries gave us, for as long as it is good.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use reqwest::header::HeaderValue;
use tokio::time::Instant;

use super::Grant;
use crate::oci::store::CredentialHash;

/// Tokens kept before expired ones are dropped.
const MAX_TOKENS: usize = 1024;

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Purpose {
    /// The host that gave the challenge.
    pub host: String,
    pub repository: String,
    /// Whose it is; none for a stranger's.
    pub credential: Option<CredentialHash>,
}

/// `Authorization` headers that worked.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<Purpose, (HeaderValue, Instant)>>);

impl Tokens {
    pub(crate) fn get(&self, purpose: &Purpose) -> Option<HeaderValue> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens
            .get(purpose)
            .filter(|(_, end)| *end > Instant::now())
            .map(|(header, _)| header.clone())
    }

    pub(crate) fn forget(&self, purpose: &Purpose) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(purpose);
    }

    pub(crate) fn keep(&self, purpose: Purpose, grant: &Grant) {
        let now = Instant::now();
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MAX_TOKENS {
            tokens.retain(|_, (_, end)| *end > now);
        }
        if tokens.len() < MAX_TOKENS {
            tokens.insert(purpose, (grant.header.clone(), now + grant.lifetime));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::oci::auth::bearer;

    #[test]
    fn tokens_are_kept_apart() {
        let purpose = |repository: &str| Purpose {
            host: "r.io".to_owned(),
            repository: repository.to_owned(),
            credential: None,
        };
        let tokens = Tokens::default();
        let header = bearer("t").expect("a header");
        tokens.keep(
            purpose("a"),
            &Grant {
                header: header.clone(),
                lifetime: Duration::from_secs(9),
            },
        );
        tokens.keep(
            purpose("old"),
            &Grant {
                header: header.clone(),
                lifetime: Duration::ZERO,
            },
        );
        assert_eq!(tokens.get(&purpose("a")), Some(header));
        assert_eq!(tokens.get(&purpose("b")), None);
        assert_eq!(tokens.get(&purpose("old")), None);
        tokens.forget(&purpose("a"));
        assert_eq!(tokens.get(&purpose("a")), None);
    }
}
