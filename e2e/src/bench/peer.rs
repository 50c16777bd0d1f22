//! The bare client: knows what to write before it begins, and writes it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::scene::{Scene, concurrently};
use crate::agent::{Identity, client};

/// A client with the agent's rights and nothing else to do.
pub(super) struct Peer {
    client: Client,
    /// A status as the agent writes it.
    status: Value,
}

impl Peer {
    /// For the Workloads of the scene's node, which are told what one of them was told by the agent.
    pub async fn new(scene: &Scene, status: Value) -> Result<Self> {
        let namespace = &scene.namespace;
        let client = client(namespace, namespace.name(), Identity::Pod).await?;
        Ok(Self { client, status })
    }

    /// Writes the status of every Workload once, as the agent does (a server-side apply), and gives the time that this took.
    pub async fn write_all(&self, scene: &Scene) -> Result<Duration> {
        let listed = scene.api()?.list(&ListParams::default()).await;
        let objects = listed.context("listing Workloads")?.items;
        let bodies: Vec<_> = objects.iter().map(|object| self.body(object)).collect();
        let api = self.api(scene)?;
        let begun = Instant::now();
        concurrently(bodies, async |(name, body)| {
            self.apply(&api, &name, &body).await
        })
        .await?;
        Ok(begun.elapsed())
    }

    /// The name and what is to be written.
    pub fn body(&self, object: &DynamicObject) -> (String, Value) {
        let mut status = self.status.clone();
        if let Some(fields) = status.as_object_mut() {
            fields.insert("workloadId".to_owned(), json!(object.uid()));
        }
        let body = json!({
            "apiVersion": "runtime.wasmcloud.dev/v1alpha1",
            "kind": "Workload",
            "metadata": {"name": object.name_any(), "uid": object.uid(), "resourceVersion": object.resource_version()},
            "status": status,
        });
        (object.name_any(), body)
    }

    /// One write.
    pub async fn apply(&self, api: &Api<DynamicObject>, name: &str, body: &Value) -> Result<()> {
        let params = PatchParams::apply("washlet-agent").force();
        let written = api.patch_status(name, &params, &Patch::Apply(body)).await;
        written.map(drop).context("writing a status")
    }

    /// The API of Workloads as this client.
    pub fn api(&self, scene: &Scene) -> Result<Api<DynamicObject>> {
        crate::objects::api(&self.client, scene.namespace.name(), "Workload")
    }
}
