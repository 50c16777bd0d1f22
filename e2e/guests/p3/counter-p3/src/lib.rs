//! Answers `served N together M\n` after `?ms=N` milliseconds: N counts the requests of this instance, and M those that it had
//! at the same time when this one came, itself included. `/trap` traps after the pause; `?says=L` announces L bytes, however
//! long the answer is; to `/empty` it has no body at all, and to `/late` its body follows after another pause.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:counter-p3;

        world guest {
            import wasi:clocks/monotonic-clock@0.3.0;
            export wasi:http/handler@0.3.0;
        }
    ",
    path: "../../../../wit/p3",
    generate_all,
});

use core::sync::atomic::{AtomicU32, Ordering};
use exports::wasi::http::handler::Guest;
use wasi::clocks::monotonic_clock::wait_for;
use wasi::http::types::{ErrorCode, Fields, Request, Response};
use wit_bindgen::spawn_local;

static SERVED: AtomicU32 = AtomicU32::new(0);
static TOGETHER: AtomicU32 = AtomicU32::new(0);

struct Counter;

impl Guest for Counter {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let served = SERVED.fetch_add(1, Ordering::Relaxed) + 1;
        let together = TOGETHER.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(ms) = http::query(&request, "ms").and_then(|ms| ms.parse::<u64>().ok()) {
            wait_for(ms * 1_000_000).await;
        }
        let target = request.get_path_with_query().unwrap_or_default();
        if target.starts_with("/trap") {
            panic!("as asked");
        }
        TOGETHER.fetch_sub(1, Ordering::Relaxed);
        let text = format!("served {served} together {together}\n");
        let Some(length) = http::query(&request, "says") else {
            return Ok(http::text(200, text));
        };
        let headers = Fields::new();
        headers
            .append("content-length", length.as_bytes())
            .expect("a valid header");
        if target.starts_with("/empty") {
            let (_, trailers) = wit_future::new(|| Ok(None));
            let (response, _sent) = Response::new(headers, None, trailers);
            return Ok(response);
        }
        let (mut writer, body) = wit_stream::new();
        let late = target.starts_with("/late");
        spawn_local(async move {
            if late {
                wait_for(20_000_000).await;
            }
            writer.write_all(text.into_bytes()).await;
        });
        Ok(http::stream(200, headers, body))
    }
}

export!(Counter);
