//! A certificate authority of our own for servers on loopback.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// Signs the certificates of servers.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority with a key that is never written anywhere.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().context("making a key")?;
        Ok(Self {
            issuer: CertifiedIssuer::self_signed(params, key)
                .context("signing a certificate authority")?,
        })
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes `ca.crt`, and `tls.crt` and `tls.key` for a server with these names or addresses.
    ///
    /// # Errors
    /// When a name is none, or a file can't be written.
    pub fn write_server(&self, dir: &Path, names: &[&str]) -> Result<()> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).context("a server's names")?;
        params
            .distinguished_name
            .push(DnType::CommonName, "localhost");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("making a key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("signing a server's certificate")?;
        let write = |name: &str, text: String| {
            fs::write(dir.join(name), text)
                .with_context(|| format!("writing {name} into {}", dir.display()))
        };
        write("ca.crt", self.pem())?;
        write("tls.crt", certificate.pem())?;
        write("tls.key", key.serialize_pem())
    }

    /// Writes `NAME.crt` and `NAME.key` for a client, whose name this is.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn write_client(&self, dir: &Path, name: &str) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().context("making a key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("signing a client's certificate")?;
        for (ending, text) in [("crt", certificate.pem()), ("key", key.serialize_pem())] {
            fs::write(dir.join(format!("{name}.{ending}")), text)
                .with_context(|| format!("writing {name}.{ending} into {}", dir.display()))?;
        }
        Ok(())
    }
}

/// Makes ring the process's provider, which both kube and reqwest look for.
pub fn use_ring() {
    // An error says that a provider is set already: ours, by an earlier call.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
