//! TLS, and HTTP/2 where the server speaks it.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::sync::{Barrier, Notify};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::*;

/// An authority, and a server's configuration with a certificate of it.
pub(super) fn authority(name: &str, protocols: &[&str]) -> (RootCertStore, Arc<ServerConfig>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new([name.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    (roots, Arc::new(config))
}

/// Says which version it was asked in, and for whom; an echo of the body and its trailers follows.
pub(super) async fn server(config: Arc<ServerConfig>) -> Server {
    secured(config, |stream, _| async {
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if http2 {
            http_2(stream, echo).await;
        } else {
            http_1(stream, echo).await;
        }
    })
    .await
}

/// Whose connections are served by `serve` once they are secured.
async fn secured<F>(
    config: Arc<ServerConfig>,
    serve: impl Fn(TlsStream<TcpStream>, usize) -> F + Clone + Send + Sync + 'static,
) -> Server
where
    F: Future<Output = ()> + Send + 'static,
{
    Server::raw(move |stream, number| {
        let acceptor = TlsAcceptor::from(config.clone());
        let serve = serve.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, number).await;
            }
        }
    })
    .await
}

fn outside(roots: RootCertStore) -> Outside {
    let names = Names::new(&[&["127.0.0.1"]]);
    Outside::new().trust(roots).resolver(names)
}

pub(super) fn world(roots: RootCertStore) -> World {
    World::new(&outside(roots))
}

#[tokio::test]
async fn http_2_is_spoken_with_servers_that_do_and_calls_share_a_connection() {
    let (roots, config) = authority("a.test", &["h2", "http/1.1"]);
    let server = server(config).await;
    let world = world(roots);
    let main = world.component(&["a.test", "127.0.0.1"]);
    let url = format!("https://a.test:{}/", server.port);
    let trailers =
        HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("1"))]);
    let call = || async {
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"body"))),
            Ok(Frame::trailers(trailers.clone())),
        ];
        let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
        let mut post = request(Method::POST, &url, body);
        // As Wasmtime does.
        let host = HeaderValue::from_static("a.test");
        post.headers_mut().insert(http::header::HOST, host);
        send(&main, post, RequestOptions::default()).await.unwrap()
    };
    let first = call().await;
    assert_eq!(
        first.headers()["x-said"],
        format!("HTTP/2.0 a.test:{}", server.port)
    );
    let all = futures::future::join_all((0..20).map(|_| call()));
    for response in within(all).await.into_iter().chain([first]) {
        let body = within(response.into_body().collect()).await.unwrap();
        assert_eq!(body.trailers(), Some(&trailers));
        assert_eq!(body.to_bytes(), "body");
    }
    assert_eq!((server.connections(), world.pool.open()), (1, 1));
    world.pool.close();
    within(async {
        while world.pool.open() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn http_1_is_spoken_with_servers_that_do_not_know_better() {
    let (roots, config) = authority("a.test", &[]);
    let server = server(config).await;
    let world = world(roots);
    let main = world.component(&["a.test", "127.0.0.1"]);
    for _ in 0..3 {
        let url = format!("https://someone@a.test:{}/", server.port);
        let response = send(
            &main,
            request(Method::GET, &url, empty()),
            RequestOptions::default(),
        );
        let response = within(response).await.unwrap();
        assert_eq!(
            response.headers()["x-said"],
            format!("HTTP/1.1 a.test:{}", server.port)
        );
        assert_eq!(text(response).await.unwrap(), "");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn servers_have_to_be_who_they_say() {
    let (roots, config) = authority("b.test", &["h2"]);
    let other = server(config).await;
    let trusted = world(roots);
    let main = trusted.component(&["*", "127.0.0.1"]);
    let url = format!("https://a.test:{}/", other.port);
    let failed = within(get(&main, &url)).await.unwrap_err();
    assert!(matches!(failed, Error::TlsCertificateError), "{failed:?}");
    let (_, config) = authority("a.test", &["h2"]);
    let unknown = server(config).await;
    let url = format!("https://a.test:{}/", unknown.port);
    let failed = within(get(&main, &url)).await.unwrap_err();
    assert!(matches!(failed, Error::TlsCertificateError), "{failed:?}");
}

#[tokio::test]
async fn who_waits_for_a_connection_gets_a_part_of_one_that_is_new() {
    let (roots, config) = authority("a.test", &["h2"]);
    // Answers nobody before two have asked.
    let both = Arc::new(Barrier::new(2));
    let server = secured(config, move |stream, _| {
        let both = both.clone();
        http_2(stream, move |_| {
            let both = both.clone();
            async move {
                both.wait().await;
                reply("ok")
            }
        })
    })
    .await;
    let mut outside = outside(roots);
    outside.max_connections = 1;
    let world = World::new(&outside);
    let main = world.component(&["a.test", "127.0.0.1"]);
    let url = format!("https://a.test:{}/", server.port);
    let (first, second) = within(futures::future::join(get(&main, &url), get(&main, &url))).await;
    assert_eq!(
        (first.unwrap(), second.unwrap()),
        ("ok".into(), "ok".into())
    );
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_connection_whose_server_is_gone_without_a_word_is_given_up() {
    let (roots, config) = authority("a.test", &["h2"]);
    let (gone, goes) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let word = goes.clone();
    let reached = gone.clone();
    let server = secured(config, move |stream, number| {
        let (gone, goes) = (reached.clone(), word.clone());
        async move {
            let mut serving = Box::pin(http_2(stream, |_| async { reply("ok") }));
            tokio::select! {
                () = &mut serving => return,
                () = goes.notified(), if number == 0 => {}
            }
            gone.notify_one();
            // It is open still, but nobody is there.
            std::future::pending().await
        }
    })
    .await;
    let mut outside = outside(roots);
    outside.pings = Pings {
        silence: Duration::from_millis(200),
        answer: Duration::from_millis(200),
        ..Pings::default()
    };
    let world = World::new(&outside);
    let main = world.component(&["a.test", "127.0.0.1"]);
    let url = format!("https://a.test:{}/", server.port);
    assert_eq!(within(get(&main, &url)).await.unwrap(), "ok");
    goes.notify_one();
    within(gone.notified()).await;
    let lost = within(get(&main, &url)).await;
    assert!(lost.is_err(), "{lost:?}");
    assert_eq!(within(get(&main, &url)).await.unwrap(), "ok");
    assert_eq!(server.connections(), 2);
}
