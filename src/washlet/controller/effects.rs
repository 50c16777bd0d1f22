//! Carries out what was decided: writes to the API server, some at once, each of which reports back. Nothing here decides
//! anything.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, Resource,
    api::{
        ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
        PropagationPolicy,
    },
};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};

use super::{
    super::api,
    metrics::{Metrics, Outcome as Label, WriteLabels},
    task::Task,
    watch::Object,
    write::{Action, Key, Kind, Part, Write},
};

/// The longest that an answer may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A write ended.
#[derive(Debug)]
pub(super) struct Done {
    /// On whose behalf it was made.
    pub task: Task,
    pub key: Key,
    /// The version of the object that the write was decided upon, if it was about one that is there.
    pub version: Option<String>,
    pub written: Written,
}

/// What came of a write.
#[derive(Debug)]
pub(super) enum Written {
    /// This is the object now.
    Now(Object),
    /// The object with this UID is gone.
    Deleted(String),
    /// What was to be made was there, or what was to be changed was another: the decision was made on an old state.
    Outdated,
    /// What was to be changed or deleted is not there.
    Missing,
    /// The API server will not have it, with its reason.
    Refused(String),
    /// There was no answer, or an error that another try may mend.
    Failed,
}

impl Written {
    /// In one word, for logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Now(_) => "done",
            Self::Deleted(_) => "deleted",
            Self::Outdated => "outdated",
            Self::Missing => "missing",
            Self::Refused(_) => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Starts writes.
pub(super) struct Effects {
    client: Client,
    places: Arc<Semaphore>,
    done: mpsc::Sender<Done>,
    metrics: Metrics,
}

impl Effects {
    /// At most `concurrent` run at once.
    pub fn new(
        client: Client,
        concurrent: usize,
        metrics: Metrics,
    ) -> (Self, mpsc::Receiver<Done>) {
        let (done, receiver) = mpsc::channel(1024);
        let effects = Self {
            client,
            places: Arc::new(Semaphore::new(concurrent)),
            done,
            metrics,
        };
        (effects, receiver)
    }

    /// Starts one; its end comes as a [`Done`].
    pub fn start(&self, task: Task, write: Write) {
        let (client, places, done) = (self.client.clone(), self.places.clone(), self.done.clone());
        let metrics = self.metrics.clone();
        tokio::spawn(async move {
            // Closed when this process leads no more: what waits for its turn is the next leader's to decide.
            let Ok(_place) = places.acquire().await else {
                return;
            };
            let (key, version) = (write.key.clone(), version(&write.action));
            let written = tokio::time::timeout(TIMEOUT, carry_out(&client, write)).await;
            let written = match written {
                Ok(Ok(written)) => written,
                Ok(Err(error)) => failed(&key, &error),
                Err(_) => {
                    tracing::warn!(?key, "not written: no answer; trying again");
                    Written::Failed
                }
            };
            metrics
                .writes
                .get_or_create(&WriteLabels {
                    outcome: label(&written),
                })
                .inc();
            // Without a receiver the controller leads no more.
            let _ = done
                .send(Done {
                    task,
                    key,
                    version,
                    written,
                })
                .await;
        });
    }
}

fn version(action: &Action) -> Option<String> {
    let (Action::Merge(body) | Action::Status { body, .. }) = action else {
        return None;
    };
    let version = body.pointer("/metadata/resourceVersion")?;
    version.as_str().map(str::to_owned)
}

impl Drop for Effects {
    fn drop(&mut self) {
        self.places.close();
    }
}

fn label(written: &Written) -> Label {
    match written {
        Written::Now(_) | Written::Deleted(_) => Label::Done,
        Written::Outdated | Written::Missing => Label::Outdated,
        Written::Refused(_) => Label::Refused,
        Written::Failed => Label::Failed,
    }
}

fn failed(key: &Key, error: &kube::Error) -> Written {
    match error {
        kube::Error::Api(status) if status.code == 409 => Written::Outdated,
        kube::Error::Api(status) if status.code == 404 => Written::Missing,
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 413 | 422) => {
            tracing::warn!(?key, %error, "refused");
            Written::Refused(status.message.clone())
        }
        error => {
            tracing::warn!(?key, %error, "not written; trying again");
            Written::Failed
        }
    }
}

async fn carry_out(client: &Client, write: Write) -> Result<Written, kube::Error> {
    let Write { key, action } = write;
    let resource = resource(key.kind);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &key.namespace, &resource);
    let object = match action {
        Action::Create(body) => {
            let object = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
            api.create(
                &PostParams {
                    field_manager: manager(),
                    ..PostParams::default()
                },
                &object,
            )
            .await?
        }
        Action::Delete { uid } => {
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some(uid.clone()),
                    resource_version: None,
                }),
                propagation_policy: Some(PropagationPolicy::Background),
                ..DeleteParams::default()
            };
            // Finalizers may keep it for now.
            let kept = |object: &DynamicObject| {
                object
                    .metadata
                    .finalizers
                    .as_ref()
                    .is_some_and(|f| !f.is_empty())
            };
            match api.delete(&key.name, &params).await?.left().filter(kept) {
                Some(object) => object,
                None => return Ok(Written::Deleted(uid)),
            }
        }
        Action::Merge(patch) => {
            if !may_adopt(client, &key.namespace, &patch).await? {
                return Ok(Written::Outdated);
            }
            let params = PatchParams {
                field_manager: manager(),
                ..PatchParams::default()
            };
            api.patch(&key.name, &params, &Patch::Merge(patch)).await?
        }
        Action::Apply(body) => {
            let params = PatchParams::apply(Part::Controller.manager()).force();
            api.patch(&key.name, &params, &Patch::Apply(body)).await?
        }
        Action::Status { part, body } => {
            let params = PatchParams::apply(part.manager()).force();
            api.patch_status(&key.name, &params, &Patch::Apply(body))
                .await?
        }
    };
    read(key.kind, object)
        .map_err(kube::Error::SerdeError)
        .map(Written::Now)
}

/// Whether the controlling owner that a patch gives to an object is still there to stay, as the API server says now. One that
/// was deleted with its objects orphaned must not take them back: they would be deleted after it.
async fn may_adopt(client: &Client, namespace: &str, patch: &Value) -> Result<bool, kube::Error> {
    let owners = patch
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    let is = |owner: &&Value| owner.get("controller") == Some(&Value::Bool(true));
    let Some(owner) = owners.into_iter().flatten().find(is) else {
        return Ok(true);
    };
    let text = |field: &str| owner.get(field).and_then(Value::as_str);
    let kind = match text("kind") {
        Some("WorkloadReplicaSet") => Kind::ReplicaSet,
        Some("WorkloadDeployment") => Kind::Deployment,
        _ => return Ok(true),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource(kind));
    let now = api.get_opt(text("name").unwrap_or_default()).await?;
    Ok(now.is_some_and(|now| {
        now.metadata.uid.as_deref() == text("uid") && now.metadata.deletion_timestamp.is_none()
    }))
}

fn manager() -> Option<String> {
    Some(Part::Controller.manager().to_owned())
}

fn resource(kind: Kind) -> ApiResource {
    fn of<K: Resource<DynamicType = ()>>() -> ApiResource {
        ApiResource::erase::<K>(&())
    }
    match kind {
        Kind::Workload => of::<api::Workload>(),
        Kind::ReplicaSet => of::<api::WorkloadReplicaSet>(),
        Kind::Deployment => of::<api::WorkloadDeployment>(),
        #[cfg(test)]
        Kind::Artifact => of::<api::Artifact>(),
        Kind::EndpointSlice => of::<EndpointSlice>(),
    }
}

fn read(kind: Kind, object: DynamicObject) -> Result<Object, serde_json::Error> {
    fn of<K: serde::de::DeserializeOwned + Resource>(
        object: Value,
    ) -> Result<Arc<K>, serde_json::Error> {
        let mut object: K = serde_json::from_value(object)?;
        object.meta_mut().managed_fields = None;
        Ok(Arc::new(object))
    }
    let object = serde_json::to_value(object)?;
    Ok(match kind {
        Kind::Workload => Object::Workload(of(object)?),
        Kind::ReplicaSet => Object::ReplicaSet(of(object)?),
        Kind::Deployment => Object::Deployment(of(object)?),
        #[cfg(test)]
        Kind::Artifact => Object::Artifact(of(object)?),
        Kind::EndpointSlice => Object::EndpointSlice(of(object)?),
    })
}
