//! Whom TLS clients trust.

use rustls::RootCertStore;

/// The system's certificate authorities if there are some (`SSL_CERT_FILE` and `SSL_CERT_DIR` name them), else Mozilla's,
/// which are built in: so a container without any certificate file works. Never both, so that an operator who removes an
/// authority from the system's has removed it. Reads files.
pub(crate) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::debug!(%error, "a certificate of the system cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::debug!("the system has no certificate authorities; using the built-in ones");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}
