//! `GET /?ms=N` answers after N milliseconds. With `&chunks=C` the response begins at once, and each
//! of its C lines comes after such a pause; with `&size=S` a line has S bytes, and with `&then=panic`
//! the guest fails after the last one.

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
            Some(chunks) => {
                let size = number(&request, "size").unwrap_or(0);
                let fails = http::query(&request, "then").as_deref() == Some("panic");
                stream(out, ms, chunks, size as usize, fails);
            }
            None => {
                pause(ms);
                http::respond(out, 200, &format!("slept {ms} ms\n"));
            }
        }
    }
}

fn stream(out: ResponseOutparam, ms: u64, chunks: u64, size: usize, fails: bool) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));

    let stream = body.write().expect("the stream is taken once");
    let width = size.saturating_sub(1);
    for chunk in 1..=chunks {
        pause(ms);
        let line = format!("chunk {chunk}");
        let line = format!("{line:<width$}\n");
        for part in line.as_bytes().chunks(4096) {
            if stream.blocking_write_and_flush(part).is_err() {
                return; // The caller hung up.
            }
        }
    }
    assert!(!fails, "as it was asked to");
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
