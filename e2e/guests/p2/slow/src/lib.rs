//! `GET /?ms=N` answers after N milliseconds. With `&chunks=C` the response begins at once, and each
//! of its C lines comes after such a pause.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:slow;

        world guest {
            import wasi:clocks/monotonic-clock@0.2.12;
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use exports::wasi::http::incoming_handler::Guest;
use wasi::clocks::monotonic_clock;
use wasi::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Slow;

impl Guest for Slow {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let ms = number(&request, "ms").unwrap_or(0);
        match number(&request, "chunks") {
            Some(chunks) => stream(out, ms, chunks),
            None => {
                pause(ms);
                http::respond(out, 200, &format!("slept {ms} ms\n"));
            }
        }
    }
}

fn stream(out: ResponseOutparam, ms: u64, chunks: u64) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));

    let stream = body.write().expect("the stream is taken once");
    for chunk in 1..=chunks {
        pause(ms);
        let line = format!("chunk {chunk}\n");
        if stream.blocking_write_and_flush(line.as_bytes()).is_err() {
            return; // The caller hung up.
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn pause(ms: u64) {
    monotonic_clock::subscribe_duration(ms * 1_000_000).block();
}

fn number(request: &IncomingRequest, name: &str) -> Option<u64> {
    http::query(request, name)?.parse().ok()
}

export!(Slow);
