//! Start, stop and ask: the imperative face of the host for embedders.

use std::{future::Future, sync::Arc};

use super::{
    Host,
    observed::{Observed, Progress},
};
use crate::{
    fault::Fault,
    spec::WorkloadId,
    types::{HostHeartbeat, WorkloadStartRequest, WorkloadState, WorkloadStatus},
};

/// A call of [`HostApi`] failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HostApiError {
    /// No workload has this id.
    #[error("no workload has the id `{0}`")]
    NotFound(String),
    /// A workload with this id is there already.
    #[error("a workload with the id `{0}` is there already; stop it first, or choose another id")]
    AlreadyExists(String),
    /// The workload did not start, and nothing of it is left.
    #[error("the workload did not start ({}): {}", .0.reason, .0.message)]
    Failed(#[source] Fault),
    /// The workload was stopped before it had started.
    #[error("the workload was stopped before it had started")]
    Stopped,
}

/// Starts and stops workloads.
pub trait HostApi {
    /// Starts a workload under a new id, and waits until it answers.
    ///
    /// # Errors
    /// [`HostApiError::Failed`] at the first failure; then nothing of the workload is left. To have failures retried, state
    /// the workload with [`Host::set`] instead.
    fn workload_start(
        &self,
        request: WorkloadStartRequest,
    ) -> impl Future<Output = Result<WorkloadStatus, HostApiError>> + Send;

    /// Starts a workload under an id of the caller's choice, and waits until it answers.
    ///
    /// # Errors
    /// As [`workload_start`](Self::workload_start), and [`HostApiError::AlreadyExists`].
    fn workload_start_as(
        &self,
        id: &str,
        request: WorkloadStartRequest,
    ) -> impl Future<Output = Result<WorkloadStatus, HostApiError>> + Send;

    /// Stops a workload: no new calls, those in flight may finish within its grace.
    ///
    /// # Errors
    /// [`HostApiError::NotFound`].
    fn workload_stop(&self, id: &str) -> impl Future<Output = Result<(), HostApiError>> + Send;

    /// Says how a workload is.
    ///
    /// # Errors
    /// [`HostApiError::NotFound`].
    fn workload_status(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<WorkloadStatus, HostApiError>> + Send;

    /// Says what the host is and holds.
    fn heartbeat(&self) -> impl Future<Output = HostHeartbeat> + Send;
}

impl HostApi for Host {
    async fn workload_start(
        &self,
        request: WorkloadStartRequest,
    ) -> Result<WorkloadStatus, HostApiError> {
        let id = self.new_id();
        self.workload_start_as(&id, request).await
    }

    async fn workload_start_as(
        &self,
        id: &str,
        request: WorkloadStartRequest,
    ) -> Result<WorkloadStatus, HostApiError> {
        let key: WorkloadId = Arc::from(id);
        let desired = request
            .workload
            .into_spec(key)
            .map_err(HostApiError::Failed)?;
        let mut observed = self
            .add(desired)
            .ok_or_else(|| HostApiError::AlreadyExists(id.to_owned()))?;
        let outcome = observed
            .wait_for(|o| !matches!(o.progress, Progress::Working(_)))
            .await
            .map_or(Progress::Stopped, |o| o.progress.clone());
        match outcome {
            Progress::Failed { fault, .. } => {
                self.remove_and_wait(id).await;
                Err(HostApiError::Failed(fault))
            }
            Progress::Running | Progress::Completed => self.workload_status(id).await,
            _ => Err(HostApiError::Stopped),
        }
    }

    async fn workload_stop(&self, id: &str) -> Result<(), HostApiError> {
        if self.observe(id).is_none() {
            return Err(HostApiError::NotFound(id.to_owned()));
        }
        self.remove_and_wait(id).await;
        Ok(())
    }

    async fn workload_status(&self, id: &str) -> Result<WorkloadStatus, HostApiError> {
        let observed = self
            .observe(id)
            .ok_or_else(|| HostApiError::NotFound(id.to_owned()))?;
        Ok(WorkloadStatus {
            workload_id: id.to_owned(),
            state: state(observed),
        })
    }

    async fn heartbeat(&self) -> HostHeartbeat {
        let workloads = self.list();
        HostHeartbeat {
            id: self.id().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started(),
            os_arch: std::env::consts::ARCH.to_owned(),
            os_name: std::env::consts::OS.to_owned(),
            workload_count: workloads.len() as u64,
            component_count: workloads.iter().map(|o| o.components.len() as u64).sum(),
            offers: self.offers().to_vec(),
        }
    }
}

fn state(observed: Observed) -> WorkloadState {
    match observed.progress {
        Progress::Working(stage) => WorkloadState::Starting(stage),
        Progress::Running => WorkloadState::Running,
        Progress::Completed => WorkloadState::Completed,
        Progress::Failed { fault, .. } => WorkloadState::Failed(fault),
        Progress::Draining | Progress::Stopped => WorkloadState::Stopping,
    }
}
