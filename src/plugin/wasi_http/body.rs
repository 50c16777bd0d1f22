//! The body of a response: passes on what the guest writes, and never lets a failed one look whole.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::AbortHandle;

use super::{
    call::Call,
    counters::count,
    limit::Over,
    outbox::{Begun, Sent},
    outcome::Outcome,
};

/// A response's body.
pub(super) struct Body(Kind);

enum Kind {
    Text(Option<Bytes>),
    Guest(GuestBody),
}

/// Why a body ends before its end. The connection is then closed, by which the client knows.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the component failed after its response had begun: {0:?}")]
    Failed(Outcome),
    #[error("the workload was stopped")]
    Stopped,
    #[error("the request's body is larger than the server takes")]
    RequestTooLarge,
    #[error("the component wrote less or more than it had announced")]
    Length,
    #[error("the component gave up its response")]
    Guest(#[source] wasmtime_wasi_http::Error),
}

impl BodyError {
    /// Whether the client is to get what came before, at whatever pace it reads. Who ends a workload does not wait for that.
    pub fn is_told_in_turn(&self) -> bool {
        !matches!(self, Self::Stopped)
    }
}

/// Whether there is a body in the answer to a request with this method, if the guest writes one.
pub(super) fn has_body(method: &Method, status: StatusCode) -> bool {
    method != Method::HEAD && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The length that a head announces.
pub(super) fn announced(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// What is known of a body by its head, and by the request's method.
pub(super) struct Expected {
    /// As the head announces it, in bytes.
    pub length: Option<u64>,
    /// If not, the server drops it unread.
    pub has_body: bool,
    /// Only the head is asked for.
    pub head_only: bool,
}

struct GuestBody {
    /// None if it comes by the outbox.
    inner: Option<Begun>,
    /// How long it is, if the guest did not announce that.
    hint: SizeHint,
    call: Arc<Call>,
    guest: Option<AbortHandle>,
    over: Option<Arc<Over>>,
    /// What is missing to the length that the head has announced; the server does not ask for more than that.
    missing: Option<u64>,
    /// Nothing more will be asked for.
    whole: bool,
    /// Only the head is: what there is of the body says nothing of how long it would be.
    head_only: bool,
    /// It has failed, which is told when what came before has had its chance to be sent.
    failing: Option<BodyError>,
}

impl Body {
    pub fn text(text: Bytes) -> Self {
        Self(Kind::Text(Some(text)))
    }

    /// The body of a guest's response; `over` tells of its request's own body.
    pub fn of_guest(
        sent: Sent,
        call: Arc<Call>,
        guest: Option<AbortHandle>,
        over: Option<Arc<Over>>,
        expected: Expected,
    ) -> Self {
        let (inner, hint) = match sent {
            Sent::Whole(body) => {
                let hint = body.size_hint();
                (Some(body), hint)
            }
            Sent::GoesOn(hint) => (None, hint),
        };
        Self(Kind::Guest(GuestBody {
            inner,
            hint,
            call,
            guest,
            over,
            missing: expected.length,
            whole: !expected.has_body,
            head_only: expected.head_only,
            failing: None,
        }))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Kind::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Guest(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Text(text) => text.is_none(),
            Kind::Guest(body) => !body.head_only && body.is_complete(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Kind::Guest(body) if body.head_only => SizeHint::default(),
            // What is announced, even if less is here: the server must not take that for the whole.
            Kind::Guest(body) => body.missing.map_or_else(|| body.hint, SizeHint::with_exact),
        }
    }
}

impl GuestBody {
    /// Nothing comes any more, and nothing is missing.
    fn is_complete(&self) -> bool {
        self.missing.is_none_or(|bytes| bytes == 0)
            && match &self.inner {
                Some(body) => body.is_at_end(),
                None => self.call.outbox.is_at_end(),
            }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.failing.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if self.call.is_cut() {
            return self.fail(cx, BodyError::Stopped);
        }
        if let Some(over) = &self.over
            && over.poll(cx).is_ready()
        {
            count(&self.call.counters().too_large);
            return self.fail(cx, BodyError::RequestTooLarge);
        }
        let next = match &mut self.inner {
            Some(body) => body.next(),
            None => ready!(self.call.outbox.poll_frame(cx)),
        };
        match next {
            Some(Ok(frame)) => {
                match (&mut self.missing, frame.data_ref()) {
                    (Some(missing), Some(data)) => match missing.checked_sub(data.len() as u64) {
                        Some(less) => *missing = less,
                        None => return self.fail(cx, BodyError::Length),
                    },
                    (Some(missing), None) if *missing > 0 => {
                        return self.fail(cx, BodyError::Length);
                    }
                    (None, Some(_)) => {}
                    // The server asks for nothing after trailers.
                    (_, None) => self.whole = true,
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => match self.call.outcome() {
                Outcome::Running | Outcome::Done => self.fail(cx, BodyError::Guest(error)),
                failed => self.fail(cx, BodyError::Failed(failed)),
            },
            None if self.missing.is_some_and(|n| n > 0) => self.fail(cx, BodyError::Length),
            None => {
                self.whole = true;
                Poll::Ready(None)
            }
        }
    }

    /// Ends the body with an error, but at the next call: an error makes the server forget what it has not sent yet, and it
    /// sends when it is told to wait.
    fn fail(
        &mut self,
        cx: &Context<'_>,
        error: BodyError,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        count(&self.call.counters().cut);
        self.failing = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        let whole = self.whole || self.missing == Some(0) || self.is_complete();
        if let Some(guest) = &self.guest
            && !whole
        {
            // Nobody reads on: the client is gone, or the body has failed.
            guest.abort();
        }
        // Where the guest was not stopped, it may have more to do than to answer.
        self.call.body_ended();
    }
}
