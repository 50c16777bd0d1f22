//! What the agent asks of the API server: reads of references and writes of status. Each runs by itself, a few at once, and
//! reports back; nothing here decides anything.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};

use super::{
    super::{
        api,
        convert::{Outcome, ReferenceKey, ReferenceKind},
    },
    FIELD_MANAGER,
    tracked::Term,
    watch::kept,
};

/// The longest that an answer may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What came of an effect.
#[derive(Debug)]
pub(super) enum Done {
    /// An object was read; none if there was no answer.
    Read {
        key: ReferenceKey,
        outcome: Option<Outcome>,
    },
    /// A workload was read anew; none if there was no answer, or it is another one now.
    Reread {
        uid: String,
        term: Term,
        object: Option<Arc<api::Workload>>,
    },
    /// A status was written, or not.
    Wrote { uid: String, written: Written },
}

/// What came of a status write.
#[derive(Debug)]
pub(super) enum Written {
    /// This is the object now.
    Applied(Arc<api::Workload>),
    /// Somebody else wrote first; this is the object now, if it could be read and is still the same one.
    Conflict(Option<Arc<api::Workload>>),
    /// The object does not exist any more.
    Gone,
    /// There was no answer, or an error that another try may mend.
    Failed,
}

/// A status to write.
#[derive(Debug)]
pub(super) struct Write {
    pub namespace: String,
    pub name: String,
    /// The whole body for server-side apply, with the `resourceVersion` that it was made from.
    pub body: Value,
}

/// Starts effects.
pub(super) struct Effects {
    client: Client,
    places: Arc<Semaphore>,
    done: mpsc::Sender<Done>,
}

impl Effects {
    /// At most `concurrent` run at once.
    pub fn new(client: Client, concurrent: usize) -> (Self, mpsc::Receiver<Done>) {
        let (done, receiver) = mpsc::channel(1024);
        (
            Self {
                client,
                places: Arc::new(Semaphore::new(concurrent)),
                done,
            },
            receiver,
        )
    }

    pub fn read(&self, key: ReferenceKey) {
        let client = self.client.clone();
        self.spawn(async move {
            let outcome = tokio::time::timeout(TIMEOUT, read(client, &key))
                .await
                .ok()
                .flatten();
            Done::Read { key, outcome }
        });
    }

    /// Reads a workload anew.
    pub fn reread(&self, uid: String, term: Term, (namespace, name): (String, String)) {
        let api: Api<api::Workload> = Api::namespaced(self.client.clone(), &namespace);
        self.spawn(async move {
            let found = tokio::time::timeout(TIMEOUT, api.get_opt(&name)).await;
            let object = match found {
                Ok(Ok(object)) => object.filter(|o| o.metadata.uid.as_ref() == Some(&uid)),
                failed => {
                    tracing::warn!(
                        namespace,
                        workload = name,
                        ?failed,
                        "not read; trying again"
                    );
                    None
                }
            };
            let object = object.map(kept);
            Done::Reread { uid, term, object }
        });
    }

    pub fn write(&self, uid: String, write: Write) {
        let client = self.client.clone();
        self.spawn(async move {
            let written = tokio::time::timeout(TIMEOUT, apply(client, &uid, &write)).await;
            Done::Wrote {
                uid,
                written: written.unwrap_or(Written::Failed),
            }
        });
    }

    fn spawn(&self, effect: impl Future<Output = Done> + Send + 'static) {
        let (places, done) = (self.places.clone(), self.done.clone());
        tokio::spawn(async move {
            // The semaphore is never closed; without a place the effect would just not be bounded.
            let _place = places.acquire().await;
            let result = effect.await;
            // Without a receiver the agent is going away.
            let _ = done.send(result).await;
        });
    }
}

async fn read(client: Client, key: &ReferenceKey) -> Option<Outcome> {
    let (namespace, name) = (key.namespace.as_str(), key.name.as_str());
    match key.kind {
        ReferenceKind::Secret => {
            let found = Api::<Secret>::namespaced(client, namespace)
                .get_opt(name)
                .await;
            answer(key, found, |secret| Outcome::Found(secret.into()))
        }
        ReferenceKind::ConfigMap => {
            let found = Api::<ConfigMap>::namespaced(client, namespace)
                .get_opt(name)
                .await;
            answer(key, found, |map| Outcome::Found(map.into()))
        }
        ReferenceKind::ServiceAccount => {
            let found = Api::<ServiceAccount>::namespaced(client, namespace)
                .get_opt(name)
                .await;
            answer(key, found, |account| Outcome::Found(account.into()))
        }
    }
}

fn answer<K>(
    key: &ReferenceKey,
    found: Result<Option<K>, kube::Error>,
    outcome: impl FnOnce(K) -> Outcome,
) -> Option<Outcome> {
    match found {
        Ok(Some(object)) => Some(outcome(object)),
        Ok(None) => Some(Outcome::Missing),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Some(Outcome::Forbidden(status.message.clone()))
        }
        Err(error) => {
            tracing::warn!(reference = %key, %error, "not read; trying again");
            None
        }
    }
}

async fn apply(client: Client, uid: &str, write: &Write) -> Written {
    let api: Api<api::Workload> = Api::namespaced(client, &write.namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api
        .patch_status(&write.name, &params, &Patch::Apply(&write.body))
        .await
    {
        Ok(object) => Written::Applied(kept(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Written::Gone,
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let now = api.get_opt(&write.name).await.ok().flatten();
            Written::Conflict(
                now.filter(|o| o.metadata.uid.as_deref() == Some(uid))
                    .map(kept),
            )
        }
        Err(error) => {
            tracing::warn!(namespace = write.namespace, workload = write.name, %error, "status not written; trying again");
            Written::Failed
        }
    }
}
