//! `GET /?ms=N` answers after N milliseconds. With `&chunks=C` the response begins at once, and each
//! of its C lines comes after such a pause; with `&size=S` a line has S bytes, and with `&then=panic`
//! the guest fails after the last one.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:slow-p3;

        world guest {
            import wasi:clocks/monotonic-clock@0.3.0;
            export wasi:http/handler@0.3.0;
        }
    ",
    path: "../../../../wit/p3",
    generate_all,
});

use exports::wasi::http::handler::Guest;
use wasi::clocks::monotonic_clock::wait_for;
use wasi::http::types::{ErrorCode, Fields, Request, Response};
use wit_bindgen::{StreamWriter, spawn_local};

struct Slow;

impl Guest for Slow {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let ms = number(&request, "ms").unwrap_or(0);
        let Some(chunks) = number(&request, "chunks") else {
            pause(ms).await;
            return Ok(http::text(200, format!("slept {ms} ms\n")));
        };
        let size = number(&request, "size").unwrap_or(0);
        let fails = http::query(&request, "then").as_deref() == Some("panic");
        let (to, body) = wit_stream::new();
        spawn_local(stream(to, ms, chunks, size as usize, fails));
        Ok(http::stream(200, Fields::new(), body))
    }
}

async fn stream(mut to: StreamWriter<u8>, ms: u64, chunks: u64, size: usize, fails: bool) {
    let width = size.saturating_sub(1);
    for chunk in 1..=chunks {
        pause(ms).await;
        let line = format!("chunk {chunk}");
        let line = format!("{line:<width$}\n");
        let unsent = to.write_all(line.into_bytes()).await;
        if !unsent.is_empty() {
            return; // The caller hung up.
        }
    }
    assert!(!fails, "as it was asked to");
}

async fn pause(ms: u64) {
    wait_for(ms * 1_000_000).await;
}

fn number(request: &Request, name: &str) -> Option<u64> {
    http::query(request, name)?.parse().ok()
}

export!(Slow);
