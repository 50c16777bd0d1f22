//! From a reference to a layer, and from a layer to a file: every byte that is used was checked against the digest that
//! names it.

use std::sync::Arc;

use reqwest::Response;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::{
    failure::Failure,
    manifest::{Layer, Manifest, ManifestError, parse},
    request::{Step, body, chunk, claimed_digest, ended_early},
    session::{Answer, Ask, Session},
    store::{Access, Record, Store, StoreError},
};
use crate::spec::{Digest, ImageRef};

/// Longest manifest, in bytes: what registries accept.
const MAX_MANIFEST: u64 = 4 * 1024 * 1024;

/// What a reference stands for, as a registry says now.
pub(crate) struct Resolved {
    /// Digest of the manifest, or of the index.
    pub manifest: Digest,
    pub layer: Layer,
    /// What opened the manifest.
    pub access: Access,
}

/// What to ask for a reference.
fn ask(reference: &ImageRef, head_only: bool) -> Ask {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => Ask::Manifest {
            digest: digest.clone(),
            head_only,
        },
        (None, tag) => Ask::Tag {
            name: tag.unwrap_or_default().to_owned(),
            head_only,
        },
    }
}

/// Asks what `reference` stands for. If that is what `known` says, only the head of the manifest is transferred.
pub(crate) async fn resolve(
    session: &Session,
    reference: &ImageRef,
    known: Option<&Record>,
) -> Result<Resolved, Failure> {
    if let Some(record) = known
        && let Some(access) = unchanged(session, &ask(reference, true), record).await?
    {
        return Ok(Resolved {
            manifest: record.manifest.clone(),
            layer: record.layer(),
            access,
        });
    }
    let (manifest, bytes, access) = fetch_manifest(session, &ask(reference, false)).await?;
    let layer = match parse(&bytes)? {
        Manifest::Image(layer) => layer,
        Manifest::Index(digest) => {
            let entry = Ask::Manifest {
                digest,
                head_only: false,
            };
            match parse(&fetch_manifest(session, &entry).await?.1)? {
                Manifest::Image(layer) => layer,
                Manifest::Index(_) => {
                    return Err(
                        ManifestError::Malformed("an index within an index".to_owned()).into(),
                    );
                }
            }
        }
    };
    Ok(Resolved {
        manifest,
        layer,
        access,
    })
}

/// Asks whether these credentials open what `record` says, without asking what the tag stands for now. None if the registry
/// no longer has it.
pub(crate) async fn reprove(
    session: &Session,
    record: &Record,
) -> Result<Option<Resolved>, Failure> {
    let ask = Ask::Manifest {
        digest: record.manifest.clone(),
        head_only: true,
    };
    let access = unchanged(session, &ask, record).await?;
    Ok(access.map(|access| Resolved {
        manifest: record.manifest.clone(),
        layer: record.layer(),
        access,
    }))
}

/// The access with which the head of a manifest was read, if its digest is the recorded one. Registries that do not serve
/// heads are asked for the whole.
async fn unchanged(
    session: &Session,
    ask: &Ask,
    record: &Record,
) -> Result<Option<Access>, Failure> {
    match session.ask(ask, &[]).await {
        Ok(answer) => {
            let claimed = claimed_digest(answer.response.headers());
            let by_digest = matches!(ask, Ask::Manifest { .. });
            let same = claimed
                .as_ref()
                .map_or(by_digest, |digest| *digest == record.manifest);
            Ok(same.then_some(answer.access))
        }
        Err(failure) => match failure.status() {
            Some(404 | 405 | 501) => Ok(None),
            _ => Err(failure),
        },
    }
}

/// A manifest with its digest, and what opened it.
async fn fetch_manifest(
    session: &Session,
    ask: &Ask,
) -> Result<(Digest, Vec<u8>, Access), Failure> {
    let mut chances = Chances::default();
    loop {
        let Answer {
            response,
            access,
            host,
        } = chances.ask(session, ask).await?;
        match read_manifest(session, ask, response).await {
            Err(failure) if chances.another(host, &failure) => {}
            other => return other.map(|(digest, bytes)| (digest, bytes, access)),
        }
    }
}

/// A manifest and its digest, checked against the one that was asked for, or that the registry claims.
async fn read_manifest(
    session: &Session,
    ask: &Ask,
    response: Response,
) -> Result<(Digest, Vec<u8>), Failure> {
    let expected = match ask {
        Ask::Manifest { digest, .. } => Some(digest.clone()),
        _ => claimed_digest(response.headers()),
    };
    let bytes = body(response, Step::Manifest, MAX_MANIFEST, session.patience).await?;
    let digest = Digest::of(&bytes);
    match expected {
        Some(expected) if expected != digest => {
            let found = format!("its digest is {digest}");
            Err(Failure::Mismatch {
                what: "a manifest",
                expected,
                found,
            })
        }
        _ => Ok((digest, bytes)),
    }
}

/// Downloads a layer into the store and says what opened it.
pub(crate) async fn download(
    session: &Session,
    store: &Arc<Store>,
    layer: &Layer,
) -> Result<Access, Failure> {
    let ask = Ask::Blob(layer.digest.clone());
    let mut chances = Chances::default();
    loop {
        let Answer {
            response,
            access,
            host,
        } = chances.ask(session, &ask).await?;
        match receive(session, store, layer, response, &access).await {
            Err(failure) if chances.another(host, &failure) => {}
            other => return other.map(|()| access),
        }
    }
}

/// Chances after content that was not what its digest names: every other host gets one, and then the first one again.
#[derive(Default)]
struct Chances {
    /// Indexes of the hosts that sent it.
    liars: Vec<usize>,
    used_up: bool,
}

impl Chances {
    async fn ask(&mut self, session: &Session, ask: &Ask) -> Result<Answer, Failure> {
        match session.ask(ask, &self.liars).await {
            Err(Failure::NoHost { .. }) if !self.liars.is_empty() => {
                self.used_up = true;
                session.ask(ask, &[]).await
            }
            other => other,
        }
    }

    /// Whether there is another chance after this failure of a host.
    fn another(&mut self, host: usize, failure: &Failure) -> bool {
        self.liars.push(host);
        !self.used_up && matches!(failure, Failure::Mismatch { .. })
    }
}

/// Writes a response's body to a temporary file, and keeps that if it is the layer.
async fn receive(
    session: &Session,
    store: &Arc<Store>,
    layer: &Layer,
    mut response: Response,
    access: &Access,
) -> Result<(), Failure> {
    let mismatch = |found| Failure::Mismatch {
        what: "a layer",
        expected: layer.digest.clone(),
        found,
    };
    let temporary = on_disk(store, |store| store.temporary()).await?;
    let path = temporary.path().to_owned();
    let failed = |e| StoreError {
        action: "write",
        path: path.clone(),
        source: e,
    };
    let mut file = tokio::fs::File::from_std(temporary.reopen().map_err(failed)?);
    let (mut hash, mut size) = (Sha256::new(), 0);
    loop {
        let piece = match chunk(&mut response, Step::Layer, session.patience).await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(e) if ended_early(&e) => break,
            Err(e) => return Err(e.into()),
        };
        size += piece.len() as u64;
        if size > layer.size {
            return Err(mismatch(format!(
                "it is longer than the {} bytes of the manifest",
                layer.size
            )));
        }
        hash.update(&piece);
        file.write_all(&piece).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    if size < layer.size {
        return Err(mismatch(format!(
            "it ended after {size} of {} bytes",
            layer.size
        )));
    }
    let digest = Digest::from_hash(&hash.finalize());
    if digest != layer.digest {
        return Err(mismatch(format!("its digest is {digest}")));
    }
    let (repository, access) = (session.name.clone(), access.clone());
    on_disk(store, move |store| {
        store.keep(temporary, &digest, &repository, &access)
    })
    .await?;
    Ok(())
}

/// Does something with the store off the async threads.
pub(crate) async fn on_disk<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let owned = Arc::clone(store);
    let root = store.root().to_owned();
    tokio::task::spawn_blocking(move || work(&owned))
        .await
        .unwrap_or_else(|e| {
            Err(StoreError {
                action: "use",
                path: root,
                source: std::io::Error::other(e),
            })
        })
}
