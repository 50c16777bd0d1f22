//! Reads the body of a request to its end, and only then answers: with its length, or 400 if it failed.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:count;

        world guest {
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use exports::wasi::http::incoming_handler::Guest;
use wasi::http::types::{IncomingRequest, ResponseOutparam};
use wasi::io::streams::StreamError;

struct Count;

impl Guest for Count {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let body = request.consume().expect("the body is taken once");
        let stream = body.stream().expect("the stream is taken once");
        let mut length = 0;
        let (status, end) = loop {
            match stream.blocking_skip(64 * 1024) {
                Ok(skipped) => length += skipped,
                Err(StreamError::Closed) => break (200, "bytes"),
                Err(StreamError::LastOperationFailed(_)) => break (400, "bytes, and an error"),
            }
        };
        http::respond(out, status, &format!("{length} {end}\n"));
    }
}

export!(Count);
