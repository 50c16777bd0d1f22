//! `Artifact`: a name for an image.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, ObjectRef};

/// An image and how to get it.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "runtime.wasmcloud.dev",
    version = "v1alpha1",
    kind = "Artifact",
    namespaced,
    status = "ArtifactStatus",
    derive = "Default",
    derive = "PartialEq",
    category = "wasm",
    doc = "An Artifact is a name for an image, so that one change rolls out to every WorkloadDeployment that refers to it."
)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactSpec {
    /// The image, `[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]`. Example: `ghcr.io/acme/hello:v1`.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,

    /// A Secret of this namespace with credentials for the image's registry; for components that name none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_secret: Option<ObjectRef>,
}

/// What the image is known as.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactStatus {
    /// The last generation that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The state, one aspect each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The image that is pulled, where somebody has published it elsewhere. Default: `spec.image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub artifact_url: Option<String>,
}
