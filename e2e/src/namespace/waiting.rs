//! Waiting for objects to become what a test wants.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::DynamicObject;

use super::TestNamespace;
use crate::{
    objects::{self, Condition},
    wait::eventually,
};

impl TestNamespace {
    /// Waits until an object is as `predicate` wants it. An API server that is away is waited for too.
    ///
    /// # Errors
    /// When it is not so in time, with the object's status as seen last.
    pub async fn wait_for(
        &self,
        kind: &str,
        name: &str,
        mut predicate: impl FnMut(&DynamicObject) -> bool,
        limit: Duration,
    ) -> Result<DynamicObject> {
        let api = self.api(kind)?;
        eventually(&format!("{kind} {name}"), limit, async || {
            Ok(match api.get(name).await {
                Ok(object) if predicate(&object) => Ok(object),
                Ok(object) => Err(object
                    .data
                    .get("status")
                    .map_or("no status".to_owned(), ToString::to_string)),
                Err(error) => Err(error.to_string()),
            })
        })
        .await
    }

    /// Waits until a condition has this status, and this reason if one is given.
    ///
    /// # Errors
    /// As [`TestNamespace::wait_for`].
    pub async fn wait_for_condition(
        &self,
        (kind, name): (&str, &str),
        (condition, status): (&str, &str),
        reason: Option<&str>,
        limit: Duration,
    ) -> Result<Condition> {
        let is_wanted = |found: &Condition| {
            found.status == status && reason.is_none_or(|reason| found.reason == reason)
        };
        let seen = |object: &DynamicObject| objects::condition(object, condition);
        let object = self
            .wait_for(
                kind,
                name,
                |object| seen(object).as_ref().is_some_and(is_wanted),
                limit,
            )
            .await;
        let object = object.with_context(|| {
            format!("waiting for {condition}={status} {}", reason.unwrap_or(""))
        })?;
        seen(&object).context("the condition was there a moment ago")
    }

    /// Waits until an object is gone.
    ///
    /// # Errors
    /// When it is still there after `limit`.
    pub async fn wait_gone(&self, kind: &str, name: &str, limit: Duration) -> Result<()> {
        let api = self.api(kind)?;
        eventually(&format!("{kind} {name} is gone"), limit, async || {
            Ok(match api.get_opt(name).await {
                Ok(None) => Ok(()),
                Ok(Some(object)) => Err(format!("{:?}", object.metadata.finalizers)),
                Err(error) => Err(error.to_string()),
            })
        })
        .await
    }
}
