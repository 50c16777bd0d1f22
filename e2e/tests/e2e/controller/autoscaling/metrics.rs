//! An API of external metrics that knows one, whose value the test sets, behind the cluster's API server.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;
use washlet_e2e::{TestNamespace, run_dir, tls};

const API: &str = "external.metrics.k8s.io";
const SERVICE: &str = "v1beta1.external.metrics.k8s.io";

/// A running server; it ends when dropped. There is one API of this name in a cluster, so one test may have it.
pub struct Metrics {
    value: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Metrics {
    /// Starts it, and waits until the cluster's API server leads to it.
    pub async fn start(namespace: &TestNamespace) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("binding the metrics API")?;
        let port = listener.local_addr().context("its address")?.port();
        let value = Arc::new(AtomicU64::new(0));
        let server = tokio::spawn(serve(listener, acceptor()?, Arc::clone(&value)));
        let this = Self { value, server };
        namespace.remove_too(format!("apiservice/{SERVICE}"));
        // A name outside the cluster is all that an API server without pods can reach.
        namespace
            .apply(json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": { "name": "metrics" },
                "spec": { "type": "ExternalName", "externalName": "localhost", "ports": [{ "port": port }] },
            }))
            .await?;
        namespace
            .apply(json!({
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": { "name": SERVICE },
                "spec": {
                    "group": API,
                    "version": "v1beta1",
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "insecureSkipTLSVerify": true,
                    "service": { "namespace": namespace.name(), "name": "metrics", "port": port },
                },
            }))
            .await?;
        namespace
            .kubectl(&[
                "wait",
                "--for=condition=Available",
                "--timeout=60s",
                &format!("apiservice/{SERVICE}"),
            ])
            .await?;
        Ok(this)
    }

    /// Says what the metric is from now on.
    pub fn set(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }

    /// Takes it away: while an API that is registered does not answer, no namespace can be deleted.
    pub async fn stop(self, namespace: &TestNamespace) -> Result<()> {
        namespace
            .kubectl(&["delete", &format!("apiservice/{SERVICE}")])
            .await
            .map(drop)
    }
}

fn acceptor() -> Result<TlsAcceptor> {
    tls::use_ring();
    let dir = run_dir::subdir("metrics-api")?;
    tls::Authority::new("washlet-e2e metrics")?.write_server(&dir, &["localhost"])?;
    let certificate =
        CertificateDer::from_pem_file(dir.join("tls.crt")).context("its certificate")?;
    let key = PrivateKeyDer::from_pem_file(dir.join("tls.key")).context("its key")?;
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .context("its configuration")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, value: Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, value) = (acceptor.clone(), Arc::clone(&value));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let answer = service_fn(|request| {
                let response = answer(&request, value.load(Ordering::Relaxed));
                async move { response }
            });
            // Connections end as their clients like.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

fn answer(request: &Request<Incoming>, value: u64) -> http::Result<Response<Full<Bytes>>> {
    let path = request.uri().path().trim_end_matches('/');
    let version = format!("{API}/v1beta1");
    let (status, body) = match path.strip_prefix(&format!("/apis/{version}")) {
        Some("") => {
            let resource = json!({
                "name": "requests_per_second", "singularName": "", "namespaced": true,
                "kind": "ExternalMetricValueList", "verbs": ["get"],
            });
            let list = json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": [resource] });
            (StatusCode::OK, list)
        }
        Some(rest) if rest.ends_with("/requests_per_second") => {
            // When it was measured is for people only.
            let item = json!({
                "metricName": "requests_per_second", "metricLabels": {},
                "timestamp": "2026-01-01T00:00:00Z", "value": value.to_string(),
            });
            (
                StatusCode::OK,
                json!({ "kind": "ExternalMetricValueList", "apiVersion": version, "metadata": {}, "items": [item] }),
            )
        }
        _ => (
            StatusCode::NOT_FOUND,
            json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404 }),
        ),
    };
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
}
