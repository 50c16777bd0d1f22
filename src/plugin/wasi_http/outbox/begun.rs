//! What there is of a response's body.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

/// What a frame counts beyond its data, in bytes: many small ones are something, too.
const FRAME: usize = 128;

/// What there is of a response's body.
pub(in super::super) struct Begun {
    pub(super) here: VecDeque<Result<Frame<Bytes>, Error>>,
    /// Bytes of data in `here`.
    pub(super) size: usize,
    /// None when all is here.
    rest: Option<WasiBody>,
}

impl Begun {
    pub(super) fn of(body: WasiBody) -> Self {
        Self {
            here: VecDeque::new(),
            size: 0,
            rest: Some(body),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// Nothing comes any more.
    pub fn is_at_end(&self) -> bool {
        self.here.is_empty() && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    /// Why it cannot be sent as the body of an answer that announces this length; none if it can, or that is not known yet.
    pub fn fault(&self, announced: Option<u64>) -> Option<String> {
        let length = self.size as u64;
        if let Some(announced) = announced {
            // The server asks for no more than that, whatever comes of the rest.
            if announced == length {
                return None;
            }
            if announced < length || self.is_whole() && !self.has_failed() {
                return Some(format!(
                    "its content-length is {announced}, and its body has {length} bytes"
                ));
            }
        }
        let error = self.here.back()?.as_ref().err()?;
        Some(error.to_string())
    }

    /// There is no end to it.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.here.back(), Some(Err(_)))
    }

    /// Bytes that it holds.
    pub(super) fn cost(&self) -> usize {
        self.size + self.here.len() * FRAME
    }

    /// The next of what is here.
    pub fn next(&mut self) -> Option<Result<Frame<Bytes>, Error>> {
        let next = self.here.pop_front()?;
        if let Ok(frame) = &next {
            self.size -= frame.data_ref().map_or(0, Bytes::len);
        }
        Some(next)
    }

    /// How long it is, or will be, if that is known.
    pub fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Some(rest) if self.here.is_empty() => rest.size_hint(),
            Some(_) => SizeHint::default(),
            None => {
                let is_data =
                    |frame: &Result<Frame<Bytes>, Error>| frame.as_ref().is_ok_and(Frame::is_data);
                // With trailers, or a failure, it is not as long as its data.
                if self.here.iter().all(is_data) {
                    SizeHint::with_exact(self.size as u64)
                } else {
                    SizeHint::default()
                }
            }
        }
    }

    /// Takes in what there is; ready when that is all, or `most` bytes.
    pub(super) fn poll_fill(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<()> {
        while self.cost() < most
            && let Some(rest) = &mut self.rest
        {
            let frame = ready!(Pin::new(rest).poll_frame(cx));
            match &frame {
                // Nothing to send.
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => continue,
                Some(Ok(frame)) => self.size += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => self.rest = None,
            }
            self.here.extend(frame);
        }
        Poll::Ready(())
    }

    /// Nobody writes any more of it: it has failed if it is not whole.
    pub(super) fn end(&mut self) {
        if self.rest.take().is_some() {
            self.here.push_back(Err(Error::HttpResponseIncomplete));
        }
    }
}
