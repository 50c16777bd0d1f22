//! HTTP clients, one for each set of trusted authorities.
//!
//! The TLS configuration is built here, with ring, and handed to reqwest whole. So nothing process-wide has to be installed,
//! and a container without any certificate file works: the system's authorities are used if there are some, else Mozilla's,
//! which are built in. (reqwest's own platform verifier fails in such a container.) Never both, so that an operator who
//! removes an authority from the system's has removed it.
//!
//! Proxies are taken from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower case, by reqwest.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::redirect;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use super::hosts::{Endpoint, HostsError, HostsProblem};
use crate::{spec::Digest, trust::system_roots};

/// Redirects followed for one request. Registries redirect once, to their blob storage.
const MAX_REDIRECTS: usize = 5;

/// Clients kept, with their open connections. There is one for each set of authorities in `certs.d`, so few.
const MAX_CLIENTS: usize = 64;

/// Makes and keeps HTTP clients.
pub(crate) struct Transport {
    provider: Arc<CryptoProvider>,
    roots: RootCertStore,
    connect_timeout: Duration,
    clients: Mutex<HashMap<Trust, reqwest::Client>>,
}

/// What a client trusts.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Trust {
    /// Digests of the PEM files, so that a replaced file makes another client.
    ca: Vec<Digest>,
    skip_verify: bool,
}

/// An HTTP client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A CA file of `certs.d` is unusable.
    #[error(transparent)]
    Ca(#[from] HostsError),
    /// rustls refused the configuration.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// reqwest refused the configuration (a proxy's address, for example).
    #[error("the HTTP client cannot be set up: {0}")]
    Client(#[from] reqwest::Error),
    /// The files of `certs.d` were not read to the end: the runtime shuts down.
    #[error("the registry's files were not read: {0}")]
    Task(#[source] tokio::task::JoinError),
}

impl Transport {
    /// Reads the system's authorities.
    pub(crate) fn new(connect_timeout: Duration) -> Self {
        Self {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            roots: system_roots(),
            connect_timeout,
            clients: Mutex::default(),
        }
    }

    /// The client for an endpoint. Reads the endpoint's CA files.
    pub(crate) fn client(&self, endpoint: &Endpoint) -> Result<reqwest::Client, TransportError> {
        let pems = endpoint
            .ca
            .iter()
            .map(|path| read(path))
            .collect::<Result<Vec<_>, _>>()?;
        let trust = Trust {
            ca: pems.iter().map(|(_, pem)| Digest::of(pem)).collect(),
            skip_verify: endpoint.skip_verify,
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&trust) {
            return Ok(client.clone());
        }
        let client = self.build(&pems, endpoint.skip_verify)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(trust, client.clone());
        Ok(client)
    }

    fn build(
        &self,
        pems: &[(PathBuf, Vec<u8>)],
        skip_verify: bool,
    ) -> Result<reqwest::Client, TransportError> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?;
        let tls = if skip_verify {
            let verifier = Arc::new(NoVerification(Arc::clone(&self.provider)));
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth()
        } else {
            let mut roots = self.roots.clone();
            for (path, pem) in pems {
                add(&mut roots, path, pem)?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(self.connect_timeout)
            .redirect(redirect::Policy::custom(follow))
            .referer(false)
            .user_agent(concat!("washlet/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(client)
    }
}

/// Follows a few redirects, but none from HTTPS to plain HTTP.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let was_https = attempt
        .previous()
        .last()
        .is_some_and(|url| url.scheme() == "https");
    if was_https && attempt.url().scheme() != "https" {
        return attempt.error("redirected from HTTPS to plain HTTP");
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("redirected too often");
    }
    attempt.follow()
}

fn read(path: &Path) -> Result<(PathBuf, Vec<u8>), HostsError> {
    let pem = std::fs::read(path).map_err(|e| unusable(path, HostsProblem::Unreadable(e)))?;
    Ok((path.to_owned(), pem))
}

fn add(roots: &mut RootCertStore, path: &Path, pem: &[u8]) -> Result<(), HostsError> {
    let bad = |why: String| unusable(path, HostsProblem::Certificate(why));
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| bad(e.to_string()))?;
        roots.add(certificate).map_err(|e| bad(e.to_string()))?;
        count += 1;
    }
    if count == 0 {
        Err(bad("nothing between BEGIN and END CERTIFICATE".to_owned()))
    } else {
        Ok(())
    }
}

fn unusable(path: &Path, problem: HostsProblem) -> HostsError {
    HostsError {
        path: path.to_owned(),
        problem,
    }
}

/// `skip_verify = true`: any certificate will do. Signatures are still checked, so the peer has the key of what it showed.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
