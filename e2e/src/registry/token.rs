//! The token server that registries with per-repository rights send their clients to.
//!
//! It signs what the client asked for and the user may have: everything below the user's own name, nothing else. As
//! with real ones a request for too much is answered with a token for less.

mod jwt;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_rustls::TlsAcceptor;

use super::{ALICE, BOB, User};
use jwt::{Signer, jwk_set};

const ISSUER: &str = "washlet-e2e token server";
const SERVICE: &str = "washlet-e2e-registry";
const LIFETIME_SECONDS: u64 = 300;

/// A running server; it ends when dropped.
pub(super) struct TokenServer {
    address: SocketAddr,
    jwks: PathBuf,
    /// Its end tells the server's thread to go.
    _stop: oneshot::Sender<()>,
}

// === impl TokenServer ===

impl TokenServer {
    /// Starts it with the certificate and key in `dir`, where it leaves its public key for the registry.
    pub(super) async fn start(dir: &Path) -> Result<Self> {
        let key = KeyPair::generate().context("making the key that signs tokens")?;
        let jwks = dir.join("jwks.json");
        fs::write(&jwks, jwk_set(&key)?).context("writing the public key for tokens")?;
        let signer = Arc::new(Signer::new(&key)?);
        let acceptor = acceptor(dir)?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .context("binding the token server")?;
        listener
            .set_nonblocking(true)
            .context("binding the token server")?;
        let address = listener
            .local_addr()
            .context("the token server's address")?;

        // A runtime of its own: the one of the test that starts it ends before others are done with the server.
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("making a runtime")?;
        thread::Builder::new()
            .name("token-server".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    tokio::select! {
                        result = serve(listener, acceptor, signer) => eprintln!("the token server ended: {result:?}"),
                        _ = stopped => {}
                    }
                });
            })
            .context("starting the token server's thread")?;
        Ok(Self {
            address,
            jwks,
            _stop: stop,
        })
    }

    pub(super) fn realm(&self) -> String {
        format!("https://localhost:{}/token", self.address.port())
    }

    pub(super) fn service(&self) -> &'static str {
        SERVICE
    }

    /// The `auth` section of the registry's configuration.
    pub(super) fn registry_config(&self) -> Value {
        json!({"token": {"realm": self.realm(), "service": SERVICE, "issuer": ISSUER, "jwks": self.jwks}})
    }
}

async fn serve(
    listener: std::net::TcpListener,
    acceptor: TlsAcceptor,
    signer: Arc<Signer>,
) -> Result<()> {
    let listener = TcpListener::from_std(listener).context("listening for tokens")?;
    loop {
        let (stream, _) = listener.accept().await.context("accepting a connection")?;
        let (acceptor, signer) = (acceptor.clone(), Arc::clone(&signer));
        tokio::spawn(async move {
            // A client that does not trust the certificate, or leaves early, is what some tests are about.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let answer = service_fn(|request| {
                let response = answer(&request, &signer);
                async move { response }
            });
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

fn answer(request: &Request<Incoming>, signer: &Signer) -> Result<Response<Full<Bytes>>> {
    let respond = |status: StatusCode, body: Value| {
        let response = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/json");
        response
            .body(Full::new(Bytes::from(body.to_string())))
            .context("an answer")
    };
    if request.method() != http::Method::GET {
        // What servers without the OAuth2 flow say; clients go on with GET.
        return respond(StatusCode::NOT_FOUND, json!({}));
    }
    let Some(user) = user(request) else {
        let errors =
            json!({"errors": [{"code": "UNAUTHORIZED", "message": "wrong user name or password"}]});
        return respond(StatusCode::UNAUTHORIZED, errors);
    };
    let query = request.uri().query().unwrap_or_default();
    let access: Vec<Value> = scopes(query)
        .iter()
        .filter_map(|scope| granted(scope, user))
        .collect();
    let token = signer.token(user, &access)?;
    respond(
        StatusCode::OK,
        json!({"token": token, "access_token": token, "expires_in": LIFETIME_SECONDS}),
    )
}

fn user(request: &Request<Incoming>) -> Option<User> {
    let header = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    let decoded = BASE64_STANDARD
        .decode(header.strip_prefix("Basic ")?)
        .ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (name, password) = text.split_once(':')?;
    [ALICE, BOB]
        .into_iter()
        .find(|user| user.name == name && user.password == password)
}

/// The scopes of a query: the parameter may be there often, and each may hold several.
fn scopes(query: &str) -> Vec<String> {
    let values = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("scope="));
    values
        .flat_map(|value| {
            percent_decoded(value)
                .split(' ')
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// `repository:alice/app:pull,push` → the entry for the token, if the repository is the user's.
fn granted(scope: &str, user: User) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let own = name.strip_prefix(user.name)?.starts_with('/');
    let actions: Vec<_> = actions.split(',').collect();
    (own && kind == "repository").then(|| json!({"type": kind, "name": name, "actions": actions}))
}

fn percent_decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts
        .next()
        .unwrap_or_default()
        .replace('+', " ")
        .into_bytes();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        bytes.extend(u8::from_str_radix(code, 16));
        bytes.extend(rest.replace('+', " ").bytes());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn acceptor(dir: &Path) -> Result<TlsAcceptor> {
    let certificate = CertificateDer::from_pem_file(dir.join("tls.crt"))
        .context("the token server's certificate")?;
    let key =
        PrivateKeyDer::from_pem_file(dir.join("tls.key")).context("the token server's key")?;
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    Ok(TlsAcceptor::from(Arc::new(
        config.context("the token server's TLS")?,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_gets_what_is_below_their_own_name() {
        assert!(granted("repository:alice/app:pull", ALICE).is_some());
        assert!(granted("repository:alice/deep/app:pull,push", ALICE).is_some());
        assert!(granted("repository:alicent/app:pull", ALICE).is_none());
        assert!(granted("repository:bob/app:pull", ALICE).is_none());
        assert!(granted("registry:alice/catalog:*", ALICE).is_none());
    }

    #[test]
    fn scopes_come_repeated_and_encoded() {
        let query = "service=x&scope=repository%3Aalice%2Fa%3Apull%2Cpush&scope=repository:b/c:pull+repository:d/e:pull";
        assert_eq!(
            scopes(query),
            [
                "repository:alice/a:pull,push",
                "repository:b/c:pull",
                "repository:d/e:pull"
            ]
        );
    }
}
