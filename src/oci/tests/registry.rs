//! A registry on the loopback that does as it is told: it demands logins, lies, stalls, and keeps a log.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::spec::Digest;

/// The login that the registry demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    Nothing,
    Basic,
    /// A token from `/token`, for any user.
    Token,
    /// A token from `/token`, which strangers get too.
    PublicToken,
}

/// What is wrong with an answer.
#[derive(Debug, Clone)]
pub enum Twist {
    /// This status, with these headers and this body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Another body under the same headers.
    Body(Vec<u8>),
    /// The body ends after so many bytes, though more were announced.
    Cut(usize),
    /// Nothing after so many bytes.
    Stall(usize),
    /// Nothing at all.
    Mute,
    /// The answer comes late.
    Late(Duration),
}

/// One request, as it came in.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub authorization: Option<String>,
}

pub struct Registry {
    pub address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    demand: Mutex<Demand>,
    users: Mutex<HashMap<String, String>>,
    /// Bodies and media types by path.
    content: Mutex<HashMap<String, (Vec<u8>, String)>>,
    /// Twists by a part of `METHOD path`.
    twists: Mutex<Vec<(String, Twist)>>,
    log: Mutex<Vec<Seen>>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Registry {
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    pub async fn start_tls(acceptor: tokio_rustls::TlsAcceptor) -> Self {
        Self::serve(Some(acceptor)).await
    }

    async fn serve(tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            demand: Mutex::new(Demand::Nothing),
            users: Mutex::default(),
            content: Mutex::default(),
            twists: Mutex::default(),
            log: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(
                    stream,
                    tls.clone(),
                    address,
                    Arc::clone(&shared),
                ));
            }
        });
        Self {
            address,
            state,
            server,
        }
    }

    pub fn demand(&self, demand: Demand) {
        *self.state.demand.lock().expect("state") = demand;
    }

    pub fn user(&self, name: &str, password: &str) {
        self.state
            .users
            .lock()
            .expect("state")
            .insert(name.to_owned(), password.to_owned());
    }

    pub fn twist(&self, part: impl Into<String>, twist: Twist) {
        self.state
            .twists
            .lock()
            .expect("state")
            .push((part.into(), twist));
    }

    pub fn untwist(&self) {
        self.state.twists.lock().expect("state").clear();
    }

    pub fn put(&self, path: String, body: Vec<u8>, kind: &str) {
        self.state
            .content
            .lock()
            .expect("state")
            .insert(path, (body, kind.to_owned()));
    }

    /// Stores a manifest under a tag and its digest.
    pub fn manifest(&self, repository: &str, tag: &str, manifest: &Value) -> Digest {
        let body = manifest.to_string().into_bytes();
        let digest = Digest::of(&body);
        for reference in [tag, digest.as_str()] {
            let path = format!("/v2/{repository}/manifests/{reference}");
            self.put(
                path,
                body.clone(),
                "application/vnd.oci.image.manifest.v1+json",
            );
        }
        digest
    }

    /// Stores an image with layers of these media types and contents.
    pub fn layers(&self, repository: &str, tag: &str, layers: &[(&str, &[u8])]) -> Digest {
        let descriptors: Vec<_> = layers
            .iter()
            .map(|(kind, body)| {
                let digest = Digest::of(body);
                self.put(
                    format!("/v2/{repository}/blobs/{digest}"),
                    body.to_vec(),
                    "application/octet-stream",
                );
                json!({ "mediaType": kind, "digest": digest.as_str(), "size": body.len() })
            })
            .collect();
        self.manifest(
            repository,
            tag,
            &json!({ "schemaVersion": 2, "layers": descriptors }),
        )
    }

    /// Stores an ordinary image.
    pub fn image(&self, repository: &str, tag: &str, component: &[u8]) -> Digest {
        self.layers(repository, tag, &[("application/wasm", component)])
    }

    /// The log since the last call.
    pub fn log(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.state.log.lock().expect("state"))
    }

    /// How often a part of `METHOD path` was asked for since the last call of `log`.
    pub fn count(&self, part: &str) -> usize {
        let log = self.state.log.lock().expect("state");
        log.iter()
            .filter(|s| format!("{} {}", s.method, s.target).contains(part))
            .count()
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<tokio_rustls::TlsAcceptor>,
    address: SocketAddr,
    state: Arc<State>,
) {
    match tls {
        None => exchange(stream, &format!("http://{address}"), &state).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                exchange(stream, &format!("https://{address}"), &state).await;
            }
        }
    }
}

/// Reads one request and answers it; every answer closes its connection.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, own: &str, state: &State) {
    let mut bytes = Vec::new();
    let head = loop {
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&piece[..n]),
            _ => return,
        }
        // A TLS handshake, by which clients find out that this is plain HTTP.
        if bytes.first() == Some(&0x16) {
            let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await;
            return;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let whole = |head: &str, body: &str| {
            let length = header(head, "content-length")
                .and_then(|l| l.parse().ok())
                .unwrap_or(0);
            body.len() >= length
        };
        match text.split_once("\r\n\r\n") {
            Some((head, body)) if whole(head, body) => break (head.to_owned(), body.to_owned()),
            _ => {}
        }
    };
    let (head, form) = head;
    let mut line = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (
        line.next().unwrap_or_default(),
        line.next().unwrap_or_default(),
    );
    let authorization = header(&head, "authorization");
    let seen = Seen {
        method: method.to_owned(),
        target: target.to_owned(),
        authorization: authorization.clone(),
    };
    state.log.lock().expect("state").push(seen);

    let (mut status, mut headers, mut body) =
        answer(state, target, authorization.as_deref(), &form, own);
    let asked = format!("{method} {target}");
    let twist = state
        .twists
        .lock()
        .expect("state")
        .iter()
        .find(|(p, _)| asked.contains(p))
        .map(|t| t.1.clone());
    let mut announced = body.len();
    let mut pause = false;
    // A twist takes the place of an answer, not of the demand for a login.
    match twist.filter(|_| status != 401) {
        None => {}
        Some(Twist::Status(code, more, text)) => {
            (status, headers, body) = (code, more, text.into_bytes());
            announced = body.len();
        }
        Some(Twist::Body(other)) => {
            announced = other.len();
            body = other;
        }
        Some(Twist::Cut(at)) => body.truncate(at),
        Some(Twist::Stall(at)) => {
            body.truncate(at);
            pause = true;
        }
        Some(Twist::Mute) => return std::future::pending().await,
        Some(Twist::Late(time)) => tokio::time::sleep(time).await,
    }
    let mut reply =
        format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {announced}\r\n");
    for (name, value) in headers {
        reply.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut reply = (reply + "\r\n").into_bytes();
    if method != "HEAD" {
        reply.extend(body);
    }
    let _ = stream.write_all(&reply).await;
    let _ = stream.flush().await;
    if pause {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
}

type Reply = (u16, Vec<(&'static str, String)>, Vec<u8>);

fn answer(
    state: &State,
    target: &str,
    authorization: Option<&str>,
    form: &str,
    own: &str,
) -> Reply {
    let demand = *state.demand.lock().expect("state");
    let users = state.users.lock().expect("state").clone();
    let path = target.split('?').next().unwrap_or_default();
    let user = authorization
        .and_then(|a| a.strip_prefix("Basic "))
        .map(|basic| {
            let text = String::from_utf8(STANDARD.decode(basic).expect("base64")).expect("text");
            let (name, password) = text.split_once(':').expect("a colon");
            (
                name.to_owned(),
                users.get(name).is_some_and(|p| p == password),
            )
        });
    if path == "/token" {
        let refresh = form
            .split('&')
            .find_map(|p| p.strip_prefix("refresh_token="));
        let allowed = match (&user, refresh) {
            (Some((_, right)), _) => *right,
            (None, Some(token)) => token == "refresh",
            (None, None) => demand == Demand::PublicToken,
        };
        let scope = target.contains("scope=repository%3A") || form.contains("scope=repository%3A");
        return match allowed && scope {
            true => (
                200,
                Vec::new(),
                br#"{"token":"good","expires_in":300}"#.to_vec(),
            ),
            false => (
                401,
                Vec::new(),
                br#"{"errors":[{"code":"UNAUTHORIZED","message":"bad login"}]}"#.to_vec(),
            ),
        };
    }
    let open = match demand {
        Demand::Nothing => true,
        Demand::Basic => user.is_some_and(|(_, right)| right),
        Demand::Token | Demand::PublicToken => authorization == Some("Bearer good"),
    };
    if !open {
        let challenge = match demand {
            Demand::Basic => "Basic realm=\"x\"".to_owned(),
            _ => {
                format!("Bearer realm=\"{own}/token\",service=\"x\",scope=\"repository:app:pull\"")
            }
        };
        return (401, vec![("www-authenticate", challenge)], Vec::new());
    }
    match state.content.lock().expect("state").get(path) {
        Some((body, kind)) => {
            let digest = Digest::of(body).to_string();
            let headers = vec![
                ("content-type", kind.clone()),
                ("docker-content-digest", digest),
            ];
            (200, headers, body.clone())
        }
        None => {
            let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            (404, Vec::new(), body.to_vec())
        }
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (n, value) = line.split_once(':')?;
        n.eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}
