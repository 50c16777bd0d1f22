//! Answers `served N\n`, where N counts the requests of this instance. `/trap` traps.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:counter;

        world guest {
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use core::sync::atomic::{AtomicU32, Ordering};
use exports::wasi::http::incoming_handler::Guest;
use wasi::http::types::{IncomingRequest, ResponseOutparam};

static SERVED: AtomicU32 = AtomicU32::new(0);

struct Counter;

impl Guest for Counter {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let served = SERVED.fetch_add(1, Ordering::Relaxed) + 1;
        if http::path(&request) == "/trap" {
            panic!("as asked");
        }
        http::respond(out, 200, &format!("served {served}\n"));
    }
}

export!(Counter);
