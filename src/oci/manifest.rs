//! What a manifest says: the one WebAssembly layer of an image, or the one image of an index that is for us. Pure functions.
//!
//! What makes an artifact a component is the media type of its layer. The configuration's type does not matter, and neither do
//! layers of other types beside the one: tools put documentation there.

use serde::Deserialize;

use crate::spec::Digest;

/// Media types of manifests that we read; sent as `Accept`.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// Media types of a layer that is a WebAssembly component: the standard one, then those of older tools.
const WASM: [&str; 6] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    "application/vnd.bytecodealliance.component.layer.v0+wasm",
    "application/vnd.wasm.component.layer.v0+wasm",
];

/// Operating systems of an index's entries, the best first. Entries for `wasm` and another system come last.
const SYSTEMS: [&str; 5] = ["wasip2", "wasip3", "wasi", "wasip1", ""];

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub digest: Digest,
    /// Its size in bytes, as the manifest has it.
    pub size: u64,
}

/// What a manifest points to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Manifest {
    /// An image with this layer.
    Image(Layer),
    /// An index, whose entry for us has this digest.
    Index(Digest),
}

/// A manifest that names nothing that could be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is not a manifest.
    #[error("the manifest cannot be read: {0}")]
    Malformed(String),
    /// The layers' media types do not single out a component.
    #[error("the image has {} WebAssembly layer, but exactly one is needed; its layers are {}", count(*wasm), list(found))]
    Layers {
        /// How many layers are WebAssembly.
        wasm: usize,
        /// Media types of all layers.
        found: Vec<String>,
    },
    /// An index has no entry for WebAssembly.
    #[error(
        "the index has no image for WebAssembly; its platforms are {}",
        list(found)
    )]
    Platforms {
        /// `os/architecture` of its entries.
        found: Vec<String>,
    },
    /// It is a manifest of another kind.
    #[error("the manifest's media type `{0}` is not supported")]
    MediaType(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize, Default)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

/// Reads a manifest of a registry.
pub(crate) fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let raw: Raw =
        serde_json::from_slice(bytes).map_err(|e| ManifestError::Malformed(e.to_string()))?;
    if raw.schema_version == Some(1) {
        return Err(ManifestError::MediaType("Docker schema 1".to_owned()));
    }
    match (raw.layers, raw.manifests) {
        (Some(layers), None) => image(layers).map(Manifest::Image),
        (None, Some(entries)) => index(entries).map(Manifest::Index),
        (None, None) => Err(match raw.media_type {
            Some(kind) => ManifestError::MediaType(kind),
            None => ManifestError::Malformed("it has neither `layers` nor `manifests`".to_owned()),
        }),
        // Some tools would read the one, some the other: a way to show different things to each.
        (Some(_), Some(_)) => Err(ManifestError::Malformed(
            "it has both `layers` and `manifests`".to_owned(),
        )),
    }
}

fn image(layers: Vec<Descriptor>) -> Result<Layer, ManifestError> {
    let mut wasm = layers
        .iter()
        .filter(|l| WASM.contains(&l.media_type.as_str()));
    match (wasm.next(), wasm.count()) {
        (Some(layer), 0) => Ok(Layer {
            digest: digest(&layer.digest)?,
            size: layer.size,
        }),
        (first, more) => Err(ManifestError::Layers {
            wasm: usize::from(first.is_some()) + more,
            found: layers.into_iter().map(|l| l.media_type).collect(),
        }),
    }
}

fn index(entries: Vec<Descriptor>) -> Result<Digest, ManifestError> {
    // Build tools add entries for unknown/unknown that hold attestations.
    let images: Vec<_> = entries
        .iter()
        .filter(|e| {
            e.platform
                .as_ref()
                .is_none_or(|p| (&*p.os, &*p.architecture) != ("unknown", "unknown"))
        })
        .collect();
    let rank = |e: &Descriptor| {
        let platform = e
            .platform
            .as_ref()
            .filter(|p| p.architecture.starts_with("wasm"))?;
        Some(
            SYSTEMS
                .iter()
                .position(|os| *os == platform.os)
                .unwrap_or(SYSTEMS.len()),
        )
    };
    let best = images
        .iter()
        .filter_map(|e| Some((rank(e)?, e)))
        .min_by_key(|(rank, _)| *rank);
    match (best, images.as_slice()) {
        (Some((_, entry)), _) => digest(&entry.digest),
        (None, [only]) => digest(&only.digest),
        _ => Err(ManifestError::Platforms {
            found: images
                .iter()
                .map(|e| {
                    e.platform.as_ref().map_or("none".to_owned(), |p| {
                        format!("{}/{}", p.os, p.architecture)
                    })
                })
                .collect(),
        }),
    }
}

fn digest(text: &str) -> Result<Digest, ManifestError> {
    text.parse()
        .map_err(|e: crate::spec::ParseImageError| ManifestError::Malformed(e.to_string()))
}

fn count(n: usize) -> String {
    if n == 0 {
        "no".to_owned()
    } else {
        n.to_string()
    }
}

/// The first few of a list that a registry wrote, on one line.
fn list(found: &[String]) -> String {
    const MOST: usize = 8;
    let mut names: Vec<_> = found
        .iter()
        .take(MOST)
        .map(|n| n.escape_debug().take(100).collect())
        .collect();
    if found.len() > MOST {
        names.push(format!("{} more", found.len() - MOST));
    }
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn digest_of(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn layer(kind: &str, n: u8) -> Value {
        json!({ "mediaType": kind, "digest": digest_of(n).as_str(), "size": 7 })
    }

    fn entry(os: &str, architecture: &str, n: u8) -> Value {
        json!({ "digest": digest_of(n).as_str(), "size": 7, "platform": { "os": os, "architecture": architecture } })
    }

    fn read(manifest: &Value) -> Result<Manifest, ManifestError> {
        parse(manifest.to_string().as_bytes())
    }

    #[test]
    fn every_wasm_media_type_is_a_component() {
        for kind in WASM {
            let found = read(&json!({ "layers": [layer("text/markdown", 1), layer(kind, 2)] }));
            assert_eq!(
                found,
                Ok(Manifest::Image(Layer {
                    digest: digest_of(2),
                    size: 7
                })),
                "{kind}"
            );
        }
    }

    #[test]
    fn none_or_several_wasm_layers_are_refused_with_a_list() {
        let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
        let cases = [
            (json!([layer(tar, 1)]), "no WebAssembly layer", tar),
            (json!([]), "no WebAssembly layer", "layers are none"),
            (
                json!([layer(WASM[0], 1), layer(WASM[1], 2)]),
                "2 WebAssembly layer",
                WASM[1],
            ),
        ];
        for (layers, count, kind) in cases {
            let text = read(&json!({ "layers": layers }))
                .expect_err("refused")
                .to_string();
            assert!(text.contains(count) && text.contains(kind), "{text}");
        }
    }

    #[test]
    fn an_index_gives_its_best_entry() {
        let cases = [
            (
                json!([
                    entry("linux", "amd64", 1),
                    entry("wasip1", "wasm", 2),
                    entry("wasip2", "wasm", 3)
                ]),
                Some(3),
            ),
            (
                json!([
                    entry("linux", "amd64", 1),
                    entry("wasi", "wasm", 2),
                    entry("wasip1", "wasm", 3)
                ]),
                Some(2),
            ),
            (
                json!([entry("js", "wasm", 1), entry("", "wasm", 2)]),
                Some(2),
            ),
            (
                json!([entry("js", "wasm32", 1), entry("linux", "arm64", 2)]),
                Some(1),
            ),
            (
                json!([entry("linux", "amd64", 1), entry("unknown", "unknown", 2)]),
                Some(1),
            ),
            (
                json!([{ "digest": digest_of(1).as_str(), "size": 1 }]),
                Some(1),
            ),
            (
                json!([entry("linux", "amd64", 1), entry("linux", "arm64", 2)]),
                None,
            ),
            (json!([]), None),
        ];
        for (entries, expected) in cases {
            let found = read(&json!({ "manifests": entries }));
            match expected {
                Some(n) => assert_eq!(found, Ok(Manifest::Index(digest_of(n))), "{entries}"),
                None => assert!(
                    matches!(found, Err(ManifestError::Platforms { .. })),
                    "{entries}"
                ),
            }
        }
        let text =
            read(&json!({ "manifests": [entry("linux", "amd64", 1), entry("linux", "arm64", 2)] }))
                .expect_err("no platform")
                .to_string();
        assert!(text.contains("linux/amd64, linux/arm64"), "{text}");
    }

    #[test]
    fn what_is_not_a_manifest_is_refused() {
        let both = json!({ "layers": [layer(WASM[0], 1)], "manifests": [] });
        let sha512 =
            json!({ "layers": [{ "mediaType": WASM[0], "digest": "sha512:00", "size": 1 }] });
        let negative = json!({ "layers": [{ "mediaType": WASM[0], "digest": digest_of(1).as_str(), "size": -1 }] });
        for bad in [json!([]), json!({}), both, sha512, negative] {
            assert!(
                matches!(read(&bad), Err(ManifestError::Malformed(_))),
                "{bad}"
            );
        }
        let other = read(&json!({ "mediaType": "application/x" }));
        assert_eq!(
            other,
            Err(ManifestError::MediaType("application/x".to_owned()))
        );
        assert!(parse(b"<html>").is_err());
    }
}
