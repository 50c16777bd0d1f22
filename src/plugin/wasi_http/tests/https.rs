//! TLS, by clients that check the certificate.

use std::{fs, path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName, version};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    client::{Client, empty, text},
    *,
};

/// A certificate for `a.com` in a folder, and what its client trusts.
pub(super) fn certify(dir: &Path) -> RootCertStore {
    let made = rcgen::generate_simple_self_signed(["a.com".to_owned()]).unwrap();
    fs::write(dir.join("tls.crt"), made.cert.pem()).unwrap();
    fs::write(dir.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    roots
}

fn files(dir: &Path) -> TlsFiles {
    TlsFiles {
        certificate: dir.join("tls.crt"),
        key: dir.join("tls.key"),
    }
}

pub(super) async fn world(dir: &Path) -> World {
    let server = HttpServer::new("127.0.0.1:0".parse().unwrap());
    let server = server.https("127.0.0.1:0".parse().unwrap(), files(dir));
    World::with(server.head_timeout(Duration::from_secs(1))).await
}

pub(super) async fn connect(
    world: &World,
    roots: &RootCertStore,
    version: &'static rustls::SupportedProtocolVersion,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    let address = world.server.https_addr().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("a.com").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await
}

#[tokio::test]
async fn both_protocols_are_spoken_and_guests_know_that_it_was_https() {
    let dir = tempfile::tempdir().unwrap();
    let roots = certify(dir.path());
    let world = world(dir.path()).await;
    for name in ["echo", "echo-p3"] {
        let _served = world
            .serve(world.kit(name, &[("host", "a.com")]), &guest(name))
            .await;
        for version in [&version::TLS12, &version::TLS13] {
            for protocols in [&["h2", "http/1.1"][..], &["h2"]] {
                let stream = connect(&world, &roots, version, protocols).await.unwrap();
                let mut client = Client::over(stream).await;
                let request = http::Request::get("https://a.com/x");
                let response = client.send(request, empty()).await.unwrap();
                for (header, value) in [("scheme", "https"), ("authority", "a.com")] {
                    assert_eq!(
                        response.headers()[format!("echo-{header}")],
                        value,
                        "{name}"
                    );
                }
                assert_eq!(text(response).await.unwrap(), "");
            }
            for protocols in [&[][..], &["http/1.1"]] {
                let mut stream = connect(&world, &roots, version, protocols).await.unwrap();
                let request = b"GET /x HTTP/1.1\r\nhost: a.com:1\r\nconnection: close\r\n\r\n";
                stream.write_all(request).await.unwrap();
                let mut response = String::new();
                stream.read_to_string(&mut response).await.unwrap();
                for line in [
                    "echo-scheme: https\r\n",
                    "echo-authority: a.com:1\r\n",
                    "echo-path: /x\r\n",
                ] {
                    assert!(response.contains(line), "{name}: {response}");
                }
            }
        }
        let plain = world.get("a.com", "/").await;
        assert!(plain.contains("echo-scheme: http\r\n"), "{name}: {plain}");
    }
}

#[tokio::test]
async fn who_does_not_finish_the_handshake_is_no_burden() {
    let dir = tempfile::tempdir().unwrap();
    let roots = certify(dir.path());
    let world = world(dir.path()).await;
    let _served = world.serve(world.kit("v1", &[]), &guest("v1")).await;
    let address = world.server.https_addr().unwrap();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut wrong = TcpStream::connect(address).await.unwrap();
    wrong
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let stream = connect(&world, &roots, &version::TLS13, &["h2"]).await;
    assert_eq!(
        Client::over(stream.unwrap())
            .await
            .get("a.com", "/")
            .await
            .0,
        200
    );
    for stream in [&mut silent, &mut wrong] {
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok());
    }
}

#[tokio::test]
async fn a_changed_certificate_is_served_and_a_broken_one_is_not() {
    // As Kubernetes does it: what is named are links into a folder that is itself a link.
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("..data");
    let swap = |version: &str, write: &dyn Fn(&Path) -> RootCertStore| {
        let folder = dir.path().join(version);
        fs::create_dir(&folder).unwrap();
        let roots = write(&folder);
        let new = dir.path().join("..new");
        std::os::unix::fs::symlink(&folder, &new).unwrap();
        fs::rename(&new, &link).unwrap();
        roots
    };
    let old = swap("1", &certify);
    for name in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), dir.path().join(name)).unwrap();
    }
    let world = world(dir.path()).await;
    let trusts = async |roots: &RootCertStore| {
        connect(&world, roots, &version::TLS13, &["h2"])
            .await
            .is_ok()
    };
    assert!(trusts(&old).await);
    let new = swap("2", &certify);
    timeout(Duration::from_secs(20), async {
        while !trusts(&new).await {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("it is never served");
    assert!(!trusts(&old).await);
    swap("3", &|folder| {
        let roots = certify(folder);
        fs::write(folder.join("tls.key"), "no key").unwrap();
        roots
    });
    sleep(Duration::from_secs(5)).await;
    assert!(trusts(&new).await);
}

#[tokio::test]
async fn without_a_good_certificate_it_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let server = HttpServer::new("127.0.0.1:0".parse().unwrap());
    let server = server.https("127.0.0.1:0".parse().unwrap(), files(dir.path()));
    let error = server.start().await.unwrap_err();
    assert!(error.source.to_string().contains("tls.crt"), "{error}");
    certify(dir.path());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let server = HttpServer::new("127.0.0.1:0".parse().unwrap());
    let error = server
        .https(address, files(dir.path()))
        .start()
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
