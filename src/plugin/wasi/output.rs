//! What a component prints, as log events: one for each line.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use crate::spec;

/// Longest line, in bytes; what is longer is logged in pieces. Bounds what an instance can make the host hold.
const MAX_LINE: usize = 8 << 10;

/// Bytes that a guest may write at a time; a formality, since writing never blocks.
const WRITE_AT_ONCE: usize = 64 << 10;

/// Where the lines of one component's stream belong.
pub(super) struct Stream {
    namespace: String,
    workload: String,
    component: Arc<str>,
    name: &'static str,
}

/// One instance's end of it. All streams that the instance opens write to the same line.
#[derive(Clone)]
pub(super) struct Output {
    stream: Arc<Stream>,
    line: Arc<Mutex<Line>>,
}

/// The line that has not ended yet.
struct Line {
    stream: Arc<Stream>,
    bytes: Vec<u8>,
}

impl Stream {
    pub fn new(workload: &spec::Workload, component: &spec::Component, name: &'static str) -> Self {
        Self {
            namespace: workload.namespace.clone(),
            workload: workload.name.clone(),
            component: component.name.clone(),
            name,
        }
    }

    fn log(&self, line: &[u8]) {
        let Self {
            namespace,
            workload,
            component,
            name,
        } = self;
        let line = String::from_utf8_lossy(line);
        tracing::info!(target: "washlet::guest", namespace, workload, %component, stream = name, "{line}");
    }
}

impl Output {
    pub fn new(stream: Arc<Stream>) -> Self {
        Self {
            line: Arc::new(Mutex::new(Line {
                stream: stream.clone(),
                bytes: Vec::new(),
            })),
            stream,
        }
    }

    fn push(&self, bytes: &[u8]) {
        // A whole line in one write, which is what most guests do, needs no copy.
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) if line.bytes.is_empty() && end.len() <= MAX_LINE => self.stream.log(end),
                Some(end) => {
                    line.extend(end);
                    line.end();
                }
                None => line.extend(piece),
            }
        }
    }
}

impl Line {
    fn extend(&mut self, mut bytes: &[u8]) {
        while self.bytes.len() + bytes.len() > MAX_LINE {
            let (now, later) = bytes.split_at(MAX_LINE - self.bytes.len());
            self.bytes.extend_from_slice(now);
            self.end();
            bytes = later;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn end(&mut self) {
        self.stream.log(&self.bytes);
        self.bytes.clear();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.end();
        }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_AT_ONCE)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{events_of, workload};

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let workload = workload("app");
        let events = events_of(|| {
            let output = Output::new(Arc::new(Stream::new(
                &workload,
                &workload.components[0],
                "stderr",
            )));
            pieces.iter().for_each(|piece| output.push(piece));
        });
        events
            .into_iter()
            .map(|event| {
                event
                    .split_once("message=")
                    .unwrap()
                    .1
                    .split(" namespace")
                    .next()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn lines_are_events() {
        assert_eq!(lines_of(&[b"a\nb\n"]), ["a", "b"]);
        assert_eq!(lines_of(&[b"a", b"b\n", b"c"]), ["ab", "c"]);
        assert_eq!(lines_of(&[b"\n"]), [""]);
        assert!(lines_of(&[]).is_empty());
    }

    #[test]
    fn long_lines_come_in_pieces() {
        let long = vec![b'x'; MAX_LINE + 10];
        let lines = lines_of(&[&long, b"\n"]);
        assert_eq!(
            lines.iter().map(String::len).collect::<Vec<_>>(),
            [MAX_LINE, 10]
        );
    }

    #[test]
    fn events_say_whose_they_are() {
        let workload = workload("app");
        let events = events_of(|| {
            Output::new(Arc::new(Stream::new(
                &workload,
                &workload.components[0],
                "stdout",
            )))
            .push(b"hi\n");
        });
        let event = events.first().unwrap();
        for field in [
            "INFO",
            "namespace=\"default\"",
            "workload=\"app\"",
            "component=main",
            "stream=\"stdout\"",
        ] {
            assert!(event.contains(field), "{event}");
        }
    }
}
