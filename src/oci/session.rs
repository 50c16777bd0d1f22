//! One pull's conversation: the hosts to ask, the credentials to ask with, and which of them worked.
//!
//! Hosts come first, credentials second: at each host every credential is tried until one works, and the next host is asked
//! only when none did. A credential that worked is tried first from then on, and a host that failed last. With credentials there is no try as a stranger, as in
//! the kubelet: a wrong password is reported, not covered up by a registry that happens to be public.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use reqwest::{
    Client, Response,
    header::{ACCEPT, AUTHORIZATION, HeaderValue},
};

use super::{
    auth::{self, Purpose, Tokens, bearer, challenge},
    failure::{Attempt, Failure},
    hosts::{Endpoint, authority},
    manifest,
    request::{Patience, RequestError, Step, method, send},
    store::{Access, CredentialHash},
};
use crate::spec::{Credential, Digest, ImageRef};

/// A credential that is for the image.
#[derive(Clone)]
pub(crate) struct Login {
    pub credential: Credential,
    /// Where it came from, for messages.
    pub origin: String,
    pub hash: CredentialHash,
}

/// A host of the registry, ready to be asked.
pub(crate) struct Host {
    pub endpoint: Endpoint,
    pub client: Client,
}

/// What is wanted of a registry.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// What a tag means.
    Tag { name: String, head_only: bool },
    /// A manifest by digest.
    Manifest { digest: Digest, head_only: bool },
    /// A blob.
    Blob(Digest),
}

/// A response that is a success.
pub(crate) struct Answer {
    pub response: Response,
    /// What opened it.
    pub access: Access,
    /// Index of the host.
    pub host: usize,
}

/// See the module.
pub(crate) struct Session {
    pub registry: String,
    pub repository: String,
    /// `registry/repository`, by which the store knows it.
    pub name: String,
    pub hosts: Vec<Host>,
    /// Empty for a stranger.
    pub logins: Vec<Login>,
    pub tokens: Arc<Tokens>,
    pub patience: Patience,
    pub attempts: Mutex<Vec<Attempt>>,
    /// Indexes of hosts that failed; they are asked last from then on.
    failed: Mutex<BTreeSet<usize>>,
    /// Index of the credential that worked last.
    good_login: AtomicUsize,
}

impl Ask {
    pub(crate) fn step(&self) -> Step {
        match self {
            Self::Tag { .. } | Self::Manifest { .. } => Step::Manifest,
            Self::Blob(_) => Step::Layer,
        }
    }

    fn head_only(&self) -> bool {
        matches!(
            self,
            Self::Tag {
                head_only: true,
                ..
            } | Self::Manifest {
                head_only: true,
                ..
            }
        )
    }

    fn path(&self, repository: &str) -> String {
        match self {
            Self::Tag { name, .. } => format!("{repository}/manifests/{name}"),
            Self::Manifest { digest, .. } => format!("{repository}/manifests/{digest}"),
            Self::Blob(digest) => format!("{repository}/blobs/{digest}"),
        }
    }

    fn allowed(&self, endpoint: &Endpoint) -> bool {
        if matches!(self, Self::Tag { .. }) {
            endpoint.resolve
        } else {
            endpoint.pull
        }
    }
}

impl Session {
    pub(crate) fn new(
        image: &ImageRef,
        hosts: Vec<Host>,
        logins: Vec<Login>,
        tokens: Arc<Tokens>,
        patience: Patience,
    ) -> Self {
        Self {
            registry: image.registry().to_owned(),
            repository: image.repository().to_owned(),
            name: image.name(),
            hosts,
            logins,
            tokens,
            patience,
            attempts: Mutex::default(),
            failed: Mutex::default(),
            good_login: AtomicUsize::new(0),
        }
    }

    /// Asks the hosts, except `excluded` ones, until one answers with a success.
    pub(crate) async fn ask(&self, ask: &Ask, excluded: &[usize]) -> Result<Answer, Failure> {
        let mut last = None;
        for index in self.order() {
            let Some(host) = self.hosts.get(index) else {
                continue;
            };
            if excluded.contains(&index) || !ask.allowed(&host.endpoint) {
                continue;
            }
            match self.ask_host(host, ask).await {
                Ok((response, access)) => {
                    return Ok(Answer {
                        response,
                        access,
                        host: index,
                    });
                }
                Err(failure) => {
                    let host = authority(&host.endpoint.base);
                    tracing::debug!(%host, error = %failure, "a host of the registry did not serve the request");
                    last = Some(failure);
                    self.failed
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(index);
                }
            }
        }
        let capability = if matches!(ask, Ask::Tag { .. }) {
            "resolve"
        } else {
            "pull"
        };
        Err(last.unwrap_or(Failure::NoHost { capability }))
    }

    /// Indexes of all hosts: those that failed last, else as `hosts.toml` has them.
    fn order(&self) -> Vec<usize> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut order: Vec<_> = (0..self.hosts.len()).collect();
        order.sort_by_key(|index| failed.contains(index));
        order
    }

    /// Asks one host with one credential after the other. Of several refusals, "not found" tells most.
    async fn ask_host(&self, host: &Host, ask: &Ask) -> Result<(Response, Access), Failure> {
        if self.logins.is_empty() {
            let answer = self.exchange(host, ask, None).await;
            return answer.inspect_err(|failure| self.note(None, failure));
        }
        let mut worst = None;
        for index in first(self.good_login.load(Ordering::Relaxed), self.logins.len()) {
            let Some(login) = self.logins.get(index) else {
                continue;
            };
            match self.exchange(host, ask, Some(login)).await {
                Ok(answer) => {
                    self.good_login.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failure) => {
                    self.note(Some(login), &failure);
                    let refused = matches!(&failure, Failure::Request(e) if e.is_refusal());
                    if worst.as_ref().and_then(Failure::status) != Some(404) || !refused {
                        worst = Some(failure);
                    }
                    if !refused {
                        break;
                    }
                }
            }
        }
        Err(worst.unwrap_or(Failure::NoHost { capability: "pull" }))
    }

    /// One request, and once more with what the host asks for.
    async fn exchange(
        &self,
        host: &Host,
        ask: &Ask,
        login: Option<&Login>,
    ) -> Result<(Response, Access), Failure> {
        let name = authority(&host.endpoint.base);
        let credential = login.map(|l| &l.credential);
        let purpose = Purpose {
            host: name.clone(),
            repository: self.repository.clone(),
            credential: login.map(|l| l.hash.clone()),
        };
        let ready_made = match credential {
            Some(Credential::Bearer(token)) => bearer(token.expose()),
            _ => None,
        };
        let mut header = ready_made.clone().or_else(|| self.tokens.get(&purpose));
        let mut answered = ready_made.is_some();
        loop {
            let response = self.send(host, &name, ask, header.as_ref()).await?;
            if response.status().is_success() {
                let access = match (header, login) {
                    (Some(_), Some(login)) => Access::Credential(login.hash.clone()),
                    _ => Access::Anonymous,
                };
                return Ok((response, access));
            }
            // Some registries answer a stranger with 403 or 404 for what is private.
            let unknown = login.is_some()
                && header.is_none()
                && matches!(response.status().as_u16(), 403 | 404);
            if !answered && (response.status().as_u16() == 401 || unknown) {
                self.tokens.forget(&purpose);
                if let Some(grant) = self.log_in(host, &name, &response, credential).await? {
                    header = Some(grant.header.clone());
                    self.tokens.keep(purpose.clone(), &grant);
                    answered = true;
                    continue;
                }
            }
            let secrets = auth::secrets(credential);
            let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
            let error =
                RequestError::from_response(&name, ask.step(), response, self.patience, &secrets);
            return Err(error.await.into());
        }
    }

    /// Answers the challenge of a response, or, if that has none, the challenge of the registry itself.
    async fn log_in(
        &self,
        host: &Host,
        name: &str,
        refused: &Response,
        credential: Option<&Credential>,
    ) -> Result<Option<auth::Grant>, Failure> {
        let mut found = challenge(refused.headers());
        if found.is_none() && credential.is_some() {
            let ping = host.client.get(host.endpoint.base.clone());
            let response = send(ping, name, Step::Token, self.patience).await?;
            found = challenge(response.headers());
        }
        let Some(found) = found else { return Ok(None) };
        let base = &host.endpoint.base;
        auth::answer(
            found,
            credential,
            base,
            &self.repository,
            &host.client,
            self.patience,
        )
        .await
    }

    async fn send(
        &self,
        host: &Host,
        name: &str,
        ask: &Ask,
        header: Option<&HeaderValue>,
    ) -> Result<Response, RequestError> {
        let mut url = host.endpoint.base.clone();
        url.set_path(&format!("{}{}", url.path(), ask.path(&self.repository)));
        if let Some(namespace) = &host.endpoint.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        let mut request = host.client.request(method(ask.head_only()), url);
        if ask.step() == Step::Manifest {
            request = request.header(ACCEPT, manifest::ACCEPT);
        }
        if let Some(header) = header {
            request = request.header(AUTHORIZATION, header);
        }
        send(request, name, ask.step(), self.patience).await
    }

    fn note(&self, login: Option<&Login>, failure: &Failure) {
        let outcome = match failure {
            Failure::Request(e) => e.outcome(),
            other => other.to_string(),
        };
        let attempt = Attempt {
            origin: login.map(|l| l.origin.clone()),
            outcome,
        };
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if !attempts.contains(&attempt) {
            attempts.push(attempt);
        }
    }
}

/// All indexes below `count`, `good` first.
fn first(good: usize, count: usize) -> impl Iterator<Item = usize> {
    std::iter::once(good)
        .chain((0..count).filter(move |i| *i != good))
        .take(count)
}
