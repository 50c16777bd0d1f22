//! What can be pushed: good artifacts, and bad ones of every kind.

use serde_json::{Value, json};

use super::push::digest;

/// Media types that matter for components.
pub mod media_type {
    /// A component or a core module, today.
    pub const WASM: &str = "application/wasm";
    /// What goes with it.
    pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
    /// The layer of older tools.
    pub const LEGACY_WASM: &str = "application/vnd.wasm.content.layer.v1+wasm";
    /// And the configuration that they wrote.
    pub const LEGACY_WASM_CONFIG: &str = "application/vnd.wasm.config.v1+json";
    /// A manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An index of manifests.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// A manifest in Docker's format.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
}

/// A part of an artifact.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its media type, as the manifest states it.
    pub media_type: String,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// The platform of a manifest in an index.
#[derive(Clone, Copy, Debug)]
pub struct Platform {
    /// `wasip2`, `linux`, …
    pub os: &'static str,
    /// `wasm`, `amd64`, …
    pub architecture: &'static str,
}

/// A manifest to be, with what it points to.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The manifest's own media type.
    pub media_type: String,
    /// The configuration.
    pub config: Layer,
    /// The layers, in order.
    pub layers: Vec<Layer>,
    /// The manifest's annotations.
    pub annotations: Vec<(String, String)>,
}

// === impl Artifact ===

impl Artifact {
    /// A component as today's tools push it.
    #[must_use]
    pub fn wasm(component: &[u8]) -> Self {
        let config = json!({
            "created": "2025-01-01T00:00:00Z", "architecture": "wasm", "os": "wasip2",
            "layerDigests": [digest(component)], "component": {"exports": [], "imports": []},
        });
        Self::new(
            (media_type::WASM_CONFIG, &config),
            (media_type::WASM, component),
        )
    }

    /// A component as older tools pushed it.
    #[must_use]
    pub fn legacy_wasm(component: &[u8]) -> Self {
        Self::new(
            (media_type::LEGACY_WASM_CONFIG, &json!({})),
            (media_type::LEGACY_WASM, component),
        )
    }

    /// An artifact of one layer.
    #[must_use]
    pub fn new(config: (&str, &Value), layer: (&str, &[u8])) -> Self {
        let config = Layer {
            media_type: config.0.to_owned(),
            data: config.1.to_string().into_bytes(),
        };
        let layer = Layer {
            media_type: layer.0.to_owned(),
            data: layer.1.to_vec(),
        };
        Self {
            media_type: media_type::MANIFEST.to_owned(),
            config,
            layers: vec![layer],
            annotations: Vec::new(),
        }
    }

    /// The manifest's bytes.
    #[must_use]
    pub fn manifest(&self) -> Vec<u8> {
        let layers: Vec<_> = self.layers.iter().map(Layer::descriptor).collect();
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": self.media_type,
            "config": self.config.descriptor(), "layers": layers,
        });
        let annotations: serde_json::Map<_, _> = self
            .annotations
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
            .collect();
        if let (Some(fields), false) = (manifest.as_object_mut(), annotations.is_empty()) {
            fields.insert("annotations".to_owned(), Value::Object(annotations));
        }
        manifest.to_string().into_bytes()
    }
}

impl Layer {
    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": digest(&self.data), "size": self.data.len()})
    }
}
