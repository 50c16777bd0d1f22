//! Answers a text that is fixed when it is built, from `GUEST_VERSION`: `v1.wasm` and `v2.wasm` tell
//! the two sides of a rolling update apart.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:version;

        world guest {
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use exports::wasi::http::incoming_handler::Guest;
use wasi::http::types::{IncomingRequest, ResponseOutparam};

const VERSION: &str = match option_env!("GUEST_VERSION") {
    Some(version) => version,
    None => "unversioned",
};

struct Version;

impl Guest for Version {
    fn handle(_request: IncomingRequest, out: ResponseOutparam) {
        http::respond(out, 200, VERSION);
    }
}

export!(Version);
