//! The task of a request's guest: which instance it has, and that somebody says how it ended.

use std::{future, sync::Arc};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Body as HttpBody;
use tokio::task::AbortHandle;

use super::{
    super::{
        counters::count,
        outcome::Outcome,
        shared::{Alone, Shared},
    },
    Call,
};
use crate::plugin::lane::Laned;

/// The guest's task. False if no guest has run in it.
pub(super) fn run<B>(end: End, request: Box<Request<B>>) -> impl Future<Output = bool> + Send
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<wasmtime_wasi_http::Error>,
{
    let mut request = Some(request);
    async move {
        let call = &end.0;
        match &call.handler.shared {
            None => {
                let take = || call.handler.instances.take();
                call.run_alone(&mut request, None, take).await
            }
            Some(shared) => {
                if let Some(request) = request.take() {
                    run_shared(&end, shared, *request).await;
                }
                false
            }
        }
    }
}

/// The same where instances serve several requests at a time: others' tasks run the guest.
async fn run_shared<B>(end: &End, shared: &Shared, request: Request<B>)
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<wasmtime_wasi_http::Error>,
{
    let call = &end.0;
    let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
    match shared.run(call, request).await {
        Ok(outcome) => end.set(outcome),
        // All of them have as many requests as they may; a further instance is this request's own.
        Err(alone) => {
            let call = call.clone();
            let lane = call.handler.lane.clone();
            let alone = move || async move {
                let Alone {
                    request,
                    deadline,
                    instance,
                } = *alone;
                let take = || future::ready(Some(instance));
                call.run_alone(&mut Some(Box::new(request)), Some(deadline), take)
                    .await
            };
            Laned::single(alone, &lane).await;
        }
    }
}

/// Says how the guest ended even if its task is stopped or panics.
pub(super) struct End(pub Arc<Call>);

impl End {
    pub fn set(&self, outcome: Outcome) {
        self.0.finish(outcome);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if self.0.outcome() == Outcome::Running {
            if std::thread::panicking() {
                count(&self.0.handler.counters.trapped);
                self.set(Outcome::Trapped);
            } else {
                self.set(Outcome::Stopped);
            }
        }
    }
}

/// Stops a task unless it is kept.
pub(super) struct StopOnDrop(pub Option<AbortHandle>);

impl StopOnDrop {
    /// From now on somebody else stops it.
    pub fn keep(mut self) -> Option<AbortHandle> {
        self.0.take()
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
