//! Every failure of a start as a user meets it, and its end: the condition that is false and its reason, a message with the
//! fix, an Event; then, within seconds of the repair and by itself, Ready and an answer.
//!
//! - `pulling`: secrets, and which of their credentials are used.
//! - `images`: what the registry has, or has not.
//! - `tenants`: who may have an image that is on the node.
//! - `linking`: bytes, imports, exports.
//! - `compiling`: what takes too much, and a compiler that is killed.
//! - `config`: ConfigMaps and Secrets, and the right to read them.
//! - `spec`: what the schema could not refuse.
//! - `routes`: two claims of one route.
//! - `rollout`: a broken generation beside one that answers.
//! - `neighbours`: what must not be touched by any of it.
//! - `admission`: what the API server refuses, and what it explains.

mod admission;
mod compiling;
mod config;
mod images;
mod linking;
mod neighbours;
mod pulling;
mod rollout;
mod routes;
mod spec;
mod tenants;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::api::DynamicObject;
use serde_json::Value;
use washlet_e2e::{Agent, TestNamespace, eventually, objects};

use crate::stage::{self, HEAL, fails, says};

/// What a workload passes on its way, in order.
const CONDITIONS: [&str; 5] = [
    "Accepted",
    "ConfigResolved",
    "ImagesPulled",
    "Linked",
    "Ready",
];
/// Between two requests of [`while_answering`].
const PACE: Duration = Duration::from_millis(50);

/// When an answer there is late: many times what one takes on a machine that has much else to do.
const LATE: Duration = Duration::from_secs(2);
/// By how much one workload is to be younger than another.
const YOUNGER: Duration = Duration::from_secs(2);

/// A failure as it is to be shown.
struct Failure<'a> {
    /// The first condition that is not True.
    condition: &'a str,
    reason: &'a str,
    /// Parts of the message.
    says: &'a [&'a str],
}

impl Failure<'_> {
    /// Waits until a workload that has never answered shows this failure in every place where people look; gives the message.
    async fn shown(&self, namespace: &TestNamespace, name: &str) -> Result<String> {
        let message = fails(namespace, name, self.reason)
            .await
            .with_context(|| name.to_owned())?;
        says(&message, self.says).with_context(|| name.to_owned())?;
        let object = namespace.get("Workload", name).await?;
        self.check(&object)
            .with_context(|| format!("{}", object.data["status"]))?;
        warned(namespace, &object, self.reason, self.says).await?;
        Ok(message)
    }

    fn check(&self, object: &DynamicObject) -> Result<()> {
        let at = CONDITIONS.iter().position(|c| *c == self.condition);
        let at = at.context("no such condition")?;
        for (index, kind) in CONDITIONS.into_iter().enumerate() {
            let wanted = match kind {
                "Ready" => "False",
                _ if index < at => "True",
                _ if index == at => "False",
                _ => "Unknown",
            };
            let found = objects::condition(object, kind).with_context(|| format!("no {kind}"))?;
            ensure!(found.status == wanted, "{kind} is {found:?}, not {wanted}");
            ensure!(
                wanted != "False" || found.reason == self.reason,
                "{kind}: {found:?}"
            );
        }
        let goes_on = ["Reconciling", "Stalled"].map(|kind| objects::condition(object, kind));
        ensure!(
            goes_on.iter().flatten().count() == 1,
            "neither or both of Reconciling and Stalled"
        );
        let waiting = object.data.pointer("/status/components/0/state/waiting");
        ensure!(
            waiting.is_none_or(|w| w["reason"] == self.reason),
            "the component waits for something else"
        );
        Ok(())
    }
}

/// Waits for a Warning about an object, with this reason and these parts in its message.
async fn warned(
    namespace: &TestNamespace,
    object: &DynamicObject,
    reason: &str,
    parts: &[&str],
) -> Result<()> {
    let uid = object.metadata.uid.as_deref().context("a uid")?;
    eventually(&format!("a Warning {reason}"), HEAL, async || {
        let events = namespace.events_for(uid).await?;
        let fits = |message: &str| parts.iter().all(|part| message.contains(part));
        let found = events.iter().any(|event| {
            event.reason.as_deref() == Some(reason)
                && event.type_.as_deref() == Some("Warning")
                && event.message.as_deref().is_some_and(fits)
        });
        let seen: Vec<_> = events
            .into_iter()
            .map(|event| (event.reason, event.message))
            .collect();
        Ok(if found { Ok(()) } else { Err(seen) })
    })
    .await
}

/// Waits until a repaired workload is Ready and answers at `NAME.test`, with nothing left of the failure.
async fn heals(agent: &Agent, namespace: &TestNamespace, name: &str) -> Result<()> {
    let since = Instant::now();
    let ready = namespace
        .wait_for_condition(("Workload", name), ("Ready", "True"), None, HEAL)
        .await;
    ready.with_context(|| name.to_owned())?;
    answers(agent, &format!("{name}.test"), 200, HEAL).await?;
    println!(
        "{}/{name} healed in {:?}",
        namespace.name(),
        since.elapsed()
    );
    let clean = |object: &DynamicObject| {
        let left = |kind: &str| objects::condition(object, kind).is_some();
        !left("Reconciling") && !left("Stalled")
    };
    namespace.wait_for("Workload", name, clean, HEAL).await?;
    Ok(())
}

/// As [`heals`], for a repair elsewhere: nobody has touched the workload.
async fn heals_untouched(agent: &Agent, namespace: &TestNamespace, name: &str) -> Result<()> {
    heals(agent, namespace, name).await?;
    let object = namespace.get("Workload", name).await?;
    ensure!(
        object.metadata.generation == Some(1),
        "generation {:?}",
        object.metadata.generation
    );
    Ok(())
}

/// Waits until the root of a host answers with this status, and returns the body.
async fn answers(agent: &Agent, host: &str, status: u16, limit: Duration) -> Result<String> {
    eventually(&format!("{status} from {host}"), limit, async || {
        let (got, body) = agent.get(host, "/").await?;
        Ok(if got == status {
            Ok(body)
        } else {
            Err(format!("{got}: {body}"))
        })
    })
    .await
}

/// Does something while the root of a host is asked again and again, and fails if an answer is not 200, or late.
async fn while_answering<T>(
    agent: &Agent,
    host: &str,
    something: impl Future<Output = Result<T>>,
) -> Result<T> {
    let asking = async {
        loop {
            let answer = tokio::time::timeout(LATE, agent.get(host, "/")).await;
            let (status, body) = answer.with_context(|| format!("{host} is late"))??;
            ensure!(status == 200, "{host} answers {status}: {body}");
            tokio::time::sleep(PACE).await;
        }
    };
    tokio::select! {
        done = something => done,
        broken = asking => broken,
    }
}

/// Waits until a workload has been Ready for two seconds: what comes now is not given what was read for this one. Waited for by a
/// clock that does not step, as the wall clock may.
async fn settled(namespace: &TestNamespace, name: &str) -> Result<()> {
    let ready = ("Ready", "True");
    namespace
        .wait_for_condition(("Workload", name), ready, None, HEAL)
        .await?;
    tokio::time::sleep(YOUNGER).await;
    Ok(())
}

/// Applies a new workload that is younger than this one by the clock of objects, which has whole seconds. That clock is the API
/// server's wall clock: where it has stepped back meanwhile, what was made is deleted, and made again later.
async fn apply_younger(namespace: &TestNamespace, than: &str, object: Value) -> Result<()> {
    let old = namespace.get("Workload", than).await?;
    let old = old.metadata.creation_timestamp;
    eventually(&format!("one younger than {than}"), HEAL, async || {
        let made = namespace.apply(object.clone()).await?;
        let created = made.metadata.creation_timestamp;
        if created > old {
            return Ok(Ok(()));
        }
        let name = made.metadata.name.context("a name")?;
        namespace.delete("Workload", &name).await?;
        namespace.wait_gone("Workload", &name, HEAL).await?;
        tokio::time::sleep(YOUNGER).await;
        Ok(Err(created))
    })
    .await
}

/// Adds an item to a list, which begins here if it is not there.
fn add(list: &mut Value, item: Value) {
    if list.is_null() {
        *list = Value::Array(Vec::new());
    }
    list.as_array_mut()
        .into_iter()
        .for_each(|l| l.push(item.clone()));
}

/// A workload of one HTTP component, called `app`, at `NAME.test`, with an edited spec.
fn manifest(
    agent: &Agent,
    name: &str,
    image: &str,
    edit: impl FnOnce(&mut Value),
) -> Result<Value> {
    let text = stage::workload(agent.node(), name, image);
    let mut object: Value = serde_saphyr::from_str(&text).context("a manifest")?;
    edit(&mut object["spec"]);
    Ok(object)
}
