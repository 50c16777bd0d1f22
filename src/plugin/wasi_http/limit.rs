//! Requests' bodies, up to a size.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http::{Request, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{runtime::Handle, time};
use wasmtime_wasi_http::Error;

use crate::plugin::boxed::in_place;

/// Longest time for which the rest of a request is read that nobody wants: a client that gets its answer while it writes would
/// else lose the answer with the connection, or take the stream's early end for an error, as some do.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// A body as a server has it.
pub(super) trait Received: HttpBody<Data = Bytes, Error: Send> + Send + 'static {}

impl<B: HttpBody<Data = Bytes, Error: Send> + Send + 'static> Received for B {}

/// A body that fails when it is larger than it may be. What is left of it when it is dropped is read and thrown away for a while,
/// if its client may have to write it before it reads an answer.
pub(super) struct Limited<B: Received> {
    /// None when it has failed, or has ended.
    inner: Option<B>,
    lingers: Lingers,
    max: u64,
    left: u64,
    over: Option<Arc<Over>>,
}

/// Whether a body was larger than it may be, for those who answer. Bodies that say how long they are have none.
#[derive(Default)]
pub(super) struct Over {
    is: AtomicBool,
    waiting: AtomicWaker,
}

/// Whether the rest of a body is read that nobody wants.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lingers {
    Yes,
    /// Once something of it was asked for: until then its client has not begun.
    WhenAsked,
    /// HTTP/2 has its own way to say that no more is wanted.
    No,
}

/// A request, and whether its body is too large where that is not known yet.
type Bounded<B> = (Box<Request<Limited<B>>>, Option<Arc<Over>>);

/// Bounds a request's body; none if it is larger by its own account.
pub(super) fn bound<B: Received>(request: Request<B>, max: u64) -> Option<Bounded<B>> {
    let size = request.body().size_hint();
    // Who waits to be asked for it has not begun.
    let waits = request.headers().contains_key(header::EXPECT);
    if size.lower() > max {
        if !waits {
            tokio::spawn(linger(request.into_body()));
        }
        return None;
    }
    let lingers = match request.version() {
        Version::HTTP_2 => Lingers::No,
        _ if waits => Lingers::WhenAsked,
        _ => Lingers::Yes,
    };
    // The server sees to it that a body is as long as it says.
    let over = size
        .upper()
        .is_none_or(|upper| upper > max)
        .then(Arc::<Over>::default);
    let request = in_place(|| {
        request.map(|body| Limited {
            inner: Some(body),
            lingers,
            max,
            left: max,
            over: over.clone(),
        })
    });
    Some((request, over))
}

async fn linger<B: HttpBody>(body: B) {
    let mut body = std::pin::pin!(body);
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = time::timeout(LINGER, rest).await;
}

impl Over {
    /// Ready when the body was too large.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        self.waiting.register(cx.waker());
        if self.is.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn set(&self) {
        self.is.store(true, Ordering::Release);
        self.waiting.wake();
    }
}

impl<B> HttpBody for Limited<B>
where
    B: Received<Error: Into<Error>> + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if this.lingers == Lingers::WhenAsked {
            this.lingers = Lingers::Yes;
        }
        let polled = ready!(Pin::new(inner).poll_frame(cx)).map(|frame| frame.map_err(Into::into));
        if !matches!(polled, Some(Ok(_))) {
            this.inner = None;
        }
        let (Some(over), Some(Ok(frame))) = (&this.over, &polled) else {
            return Poll::Ready(polled);
        };
        let size = frame.data_ref().map_or(0, Bytes::len) as u64;
        match this.left.checked_sub(size) {
            Some(left) => {
                this.left = left;
                Poll::Ready(polled)
            }
            None => {
                over.set();
                if let Some(inner) = this.inner.take() {
                    tokio::spawn(linger(inner));
                }
                Poll::Ready(Some(Err(Error::HttpRequestBodySize(Some(this.max)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map(HttpBody::size_hint)
            .unwrap_or_default()
    }
}

impl<B: Received> Drop for Limited<B> {
    fn drop(&mut self) {
        if self.lingers == Lingers::Yes
            && let Some(rest) = self.inner.take_if(|body| !body.is_end_stream())
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(linger(rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody, combinators::UnsyncBoxBody};

    use super::*;

    type TestBody = UnsyncBoxBody<Bytes, Error>;

    /// A body of unknown length.
    fn parts(sizes: &[usize]) -> TestBody {
        let frames = sizes.iter().map(|size| {
            let data = Bytes::from(vec![b'x'; *size]);
            Ok(Frame::data(data))
        });
        let frames: Vec<Result<_, Error>> = frames.collect();
        StreamBody::new(futures::stream::iter(frames)).boxed_unsync()
    }

    /// What comes of a body; whether those who answer learn of it.
    async fn read(body: TestBody, max: u64) -> (Result<usize, String>, bool) {
        let Some((request, over)) = bound(Request::new(body), max) else {
            return (Err("at once".to_owned()), true);
        };
        let read = request.into_body().collect().await;
        let read = read.map(|body| body.to_bytes().len());
        let cx = Context::from_waker(std::task::Waker::noop());
        let told = over.is_some_and(|over| over.poll(&cx).is_ready());
        (read.map_err(|error| error.to_string()), told)
    }

    #[tokio::test]
    async fn a_body_may_be_as_large_as_the_limit() {
        let known = |size: usize| {
            Full::new(Bytes::from(vec![b'x'; size]))
                .map_err(|never| match never {})
                .boxed_unsync()
        };
        assert_eq!(read(known(10), 10).await, (Ok(10), false));
        assert_eq!(read(known(11), 10).await, (Err("at once".to_owned()), true));
        assert_eq!(read(parts(&[4, 6]), 10).await, (Ok(10), false));
        assert_eq!(read(parts(&[]), 0).await, (Ok(0), false));
        let (failed, told) = read(parts(&[4, 6, 1]), 10).await;
        assert!(failed.unwrap_err().contains("10 bytes") && told);
    }
}
