//! TLS for incoming connections: a certificate and its key from files, which may change while they are served.
//!
//! The files are read every few seconds and not watched: where Kubernetes keeps a Secret, what changes is a link to a folder
//! above them. One certificate is for all server names.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
};
use tokio::{task, time};
use tokio_rustls::{Accept, TlsAcceptor};

use super::patient::Patient;

/// How often the files are read.
const EVERY: Duration = Duration::from_secs(2);
/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Where the certificate of an HTTPS server is.
///
/// The files are PEM, and are read again when they change. A pair that cannot be used is logged, and the last good one goes
/// on being served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those that lead to an authority that clients know.
    pub certificate: PathBuf,
    /// The certificate's private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
}

/// What is served, and the files that it comes from.
pub(super) struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// What the files held when they were last good.
    first: Pair,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Why there is no certificate to serve.
#[derive(Debug, thiserror::Error)]
enum TlsError {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} holds no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    #[error("{}: {source}", path.display())]
    Certificate { path: PathBuf, source: pem::Error },
    #[error("{} holds no private key in PEM that is not encrypted", .0.display())]
    NoKey(PathBuf),
    #[error("{}: {source}", path.display())]
    Key { path: PathBuf, source: pem::Error },
    #[error("{} and {} are no pair: {source}", certificate.display(), key.display())]
    Unusable {
        certificate: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
}

/// What is known of the files from one reading to the next.
struct Following {
    served: Pair,
    /// Why they could not be used the last time, and whether that was logged.
    failing: Option<(String, bool)>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One that names the file.
    pub fn load(files: TlsFiles) -> io::Result<Self> {
        let loaded = files.read().and_then(|pair| {
            let config = files.config(&pair)?;
            Ok((pair, config))
        });
        let (first, config) = loaded.map_err(|error| {
            let kind = match &error {
                TlsError::Read { source, .. } => source.kind(),
                _ => io::ErrorKind::InvalidData,
            };
            io::Error::new(kind, error)
        })?;
        Ok(Self {
            files,
            config: ArcSwap::new(config),
            first,
        })
    }

    /// Begins a handshake, with the certificate as it is now.
    pub fn accept(&self, stream: Patient) -> Accept<Patient> {
        TlsAcceptor::from(self.config.load_full()).accept(stream)
    }

    /// Takes over what the files hold whenever it changes, for ever.
    pub async fn follow(self: Arc<Self>) {
        let mut following = Following {
            served: self.first.clone(),
            failing: None,
        };
        loop {
            time::sleep(EVERY).await;
            let tls = self.clone();
            // A file system that hangs must not stop those who accept connections.
            let Ok(read) = task::spawn_blocking(move || tls.files.read()).await else {
                continue;
            };
            if let Some(config) = following.judge(&self.files, read) {
                self.config.store(config);
            }
        }
    }
}

impl TlsFiles {
    fn read(&self) -> Result<Pair, TlsError> {
        Ok(Pair {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
        })
    }

    /// TLS 1.2 and 1.3, for HTTP/2 and HTTP/1.1.
    fn config(&self, pair: &Pair) -> Result<Arc<ServerConfig>, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pair.certificate)
            .collect::<Result<_, _>>()
            .map_err(|source| TlsError::Certificate {
                path: self.certificate.clone(),
                source,
            })?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(self.certificate.clone()));
        }
        let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|source| match source {
            pem::Error::NoItemsFound => TlsError::NoKey(self.key.clone()),
            source => TlsError::Key {
                path: self.key.clone(),
                source,
            },
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|source| TlsError::Unusable {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                source,
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl Following {
    /// What to serve from now on, if the files changed to something good. What is wrong with them is logged once, and not
    /// before it was found a second time: one file may have been written and the other not yet.
    fn judge(
        &mut self,
        files: &TlsFiles,
        read: Result<Pair, TlsError>,
    ) -> Option<Arc<ServerConfig>> {
        let judged = read.and_then(|pair| {
            if pair == self.served {
                return Ok(None);
            }
            let config = files.config(&pair)?;
            self.served = pair;
            Ok(Some(config))
        });
        match judged {
            Ok(config) => {
                self.failing = None;
                if config.is_some() {
                    tracing::info!(certificate = %files.certificate.display(), "a new certificate is served");
                }
                config
            }
            Err(error) => {
                let error = error.to_string();
                let again = self.failing.as_ref().filter(|(former, _)| *former == error);
                let logged = match again {
                    Some((_, true)) => true,
                    Some((_, false)) => {
                        tracing::warn!(
                            error,
                            "the new certificate cannot be used; the last good one goes on being served"
                        );
                        true
                    }
                    None => false,
                };
                self.failing = Some((error, logged));
                None
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let error = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let mut content = Vec::new();
    let file = File::open(path).map_err(error)?;
    file.take(MAX_FILE)
        .read_to_end(&mut content)
        .map_err(error)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::plugin::testing::events_of;

    /// A folder with a certificate for a name and its key.
    fn certified(dir: &Path, name: &str) -> TlsFiles {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let files = TlsFiles {
            certificate: dir.join("tls.crt"),
            key: dir.join("tls.key"),
        };
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let files = certified(dir.path(), "a");
        assert!(Tls::load(files.clone()).is_ok());
        let (certificate, key) = (
            fs::read(&files.certificate).unwrap(),
            fs::read(&files.key).unwrap(),
        );
        let other = tempfile::tempdir().unwrap();
        let other = fs::read(certified(other.path(), "b").key).unwrap();
        let cases: [(&[u8], &[u8], &str); 5] = [
            (b"", &key, "tls.crt holds no certificate"),
            (&key, &key, "tls.crt holds no certificate"),
            (&certificate, &certificate, "tls.key holds no private key"),
            (&certificate, b"", "tls.key holds no private key"),
            (&certificate, &other, "are no pair"),
        ];
        for (certificate, key, wanted) in cases {
            fs::write(&files.certificate, certificate).unwrap();
            fs::write(&files.key, key).unwrap();
            let error = Tls::load(files.clone()).err().unwrap().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        fs::remove_file(&files.key).unwrap();
        let error = Tls::load(files).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("tls.key"), "{error}");
    }

    #[test]
    fn a_good_change_is_taken_over_and_a_bad_one_is_logged_once() {
        let dir = tempfile::tempdir().unwrap();
        let files = certified(dir.path(), "a");
        let mut following = Following {
            served: files.read().unwrap(),
            failing: None,
        };
        let mut look = |files: &TlsFiles| {
            let mut taken = false;
            let events = events_of(|| {
                taken = following.judge(files, files.read()).is_some();
            });
            (taken, events)
        };
        assert_eq!(look(&files), (false, vec![]));
        certified(dir.path(), "b");
        let (taken, events) = look(&files);
        assert!(taken && events.len() == 1, "{events:?}");
        assert_eq!(look(&files), (false, vec![]));
        fs::write(&files.certificate, "no PEM").unwrap();
        assert_eq!(look(&files), (false, vec![]), "it may still be written");
        let (taken, events) = look(&files);
        assert!(!taken && events.len() == 1, "{events:?}");
        assert!(
            events[0].contains("WARN") && events[0].contains("tls.crt holds no"),
            "{events:?}"
        );
        assert_eq!(look(&files), (false, vec![]));
        certified(dir.path(), "c");
        assert!(look(&files).0);
    }
}
