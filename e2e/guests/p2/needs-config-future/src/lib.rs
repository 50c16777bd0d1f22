//! Imports a version of `wasi:config/store` that does not exist: the host's nearest offer is another.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:needs-config-future;

        package wasi:config@0.9.0 {
            interface store {
                get: func(key: string) -> option<string>;
            }
        }

        world guest {
            import wasi:config/store@0.9.0;
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use exports::wasi::http::incoming_handler::Guest;
use wasi::config0_9_0::store;
use wasi::http::types::{IncomingRequest, ResponseOutparam};

struct NeedsConfigFuture;

impl Guest for NeedsConfigFuture {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let value = store::get(&http::path(&request));
        http::respond(out, 200, &value.unwrap_or_default());
    }
}

export!(NeedsConfigFuture);
