//! Certificates: which are trusted, and what is said of those that are not.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A certificate for 127.0.0.1, and the authority (in PEM) that signed it.
fn certificate() -> (TlsAcceptor, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
        .expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a configuration");
    (TlsAcceptor::from(Arc::new(config)), authority.pem())
}

#[tokio::test]
async fn an_unknown_authority_is_reported_and_heals_with_its_file() {
    let (acceptor, authority) = certificate();
    let registry = Registry::start_tls(acceptor).await;
    registry.image("app", "1", COMPONENT);
    registry.demand(Demand::Token);
    registry.user("u", "p");
    let kit = Kit::new(&[]);
    let image = with_login(image(&registry, "app:1"), "a", "u", "p");
    let error = kit
        .pull(&image)
        .await
        .expect_err("nobody knows the authority");
    assert_eq!(error.reason(), Reason::RegistryUnavailable);
    let text = error.to_string();
    assert!(
        text.contains("certificate") && text.contains("UnknownIssuer"),
        "{text}"
    );
    let name = registry.address.to_string();
    assert!(
        text.contains(&format!("`ca` in {name}/hosts.toml")),
        "{text}"
    );

    write_hosts(
        &kit.dir,
        &name,
        &format!("[host.\"https://{name}\"]\nca = \"ca.pem\""),
    );
    let error = kit.pull(&image).await.expect_err("no such file");
    assert!(error.to_string().contains("ca.pem"), "{error}");
    let pem = kit.dir.path().join("certs").join(&name).join("ca.pem");
    std::fs::write(&pem, "no certificate").expect("a file");
    let error = kit.pull(&image).await.expect_err("not PEM");
    assert!(error.to_string().contains("no PEM certificate"), "{error}");
    std::fs::write(&pem, &authority).expect("a file");
    kit.pull(&image).await.expect("trusted");
    // Another authority by the same name is not trusted any longer.
    std::fs::write(&pem, certificate().1).expect("a file");
    let always = with_policy(image, PullPolicy::Always);
    assert_eq!(
        kit.pull(&always).await.expect_err("replaced").reason(),
        Reason::RegistryUnavailable
    );
}

#[tokio::test]
async fn skip_verify_takes_any_certificate() {
    let registry = Registry::start_tls(certificate().0).await;
    registry.image("app", "1", COMPONENT);
    let kit = Kit::new(&[]);
    let name = registry.address.to_string();
    write_hosts(
        &kit.dir,
        &name,
        &format!("server = \"https://{name}\"\nskip_verify = true"),
    );
    kit.pull(&image(&registry, "app:1"))
        .await
        .expect("not verified");
}

#[tokio::test]
async fn plain_http_has_to_be_asked_for() {
    let registry = Registry::start().await;
    registry.image("app", "1", COMPONENT);
    let kit = Kit::new(&[]);
    let error = kit
        .pull(&image(&registry, "app:1"))
        .await
        .expect_err("HTTPS is spoken");
    assert_eq!(error.reason(), Reason::RegistryUnavailable);
    assert!(
        error.to_string().contains("does not speak TLS") && error.to_string().contains("http://"),
        "{error}"
    );
    assert_eq!(registry.log().len(), 0);
}

#[tokio::test]
async fn https_is_not_left_for_plain_http() {
    let (acceptor, authority) = certificate();
    let (registry, storage) = (Registry::start_tls(acceptor).await, Registry::start().await);
    registry.image("app", "1", COMPONENT);
    storage.put(
        "/blob".to_owned(),
        COMPONENT.to_vec(),
        "application/octet-stream",
    );
    let location = format!("http://{}/blob", storage.address);
    registry.twist(
        "/blobs/",
        Twist::Status(307, vec![("location", location)], String::new()),
    );
    let kit = Kit::new(&[]);
    let name = registry.address.to_string();
    write_hosts(&kit.dir, &name, "ca = \"ca.pem\"");
    std::fs::write(
        kit.dir.path().join("certs").join(&name).join("ca.pem"),
        authority,
    )
    .expect("a file");
    let error = kit
        .pull(&image(&registry, "app:1"))
        .await
        .expect_err("downgraded");
    assert!(
        error
            .to_string()
            .contains("redirected from HTTPS to plain HTTP"),
        "{error}"
    );
    assert_eq!(storage.log().len(), 0);
}
