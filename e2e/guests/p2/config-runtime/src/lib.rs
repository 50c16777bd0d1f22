//! As `config`, over the older draft `wasi:config/runtime`, which components in the field still import.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:config-runtime;

        world guest {
            import wasi:config/runtime@0.2.0-draft;
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: ["../../../../wit", "../../../../wit/config-runtime"],
    generate_all,
});

use exports::wasi::http::incoming_handler::Guest;
use wasi::config0_2_0_draft::runtime;
use wasi::http::types::{IncomingRequest, ResponseOutparam};

struct Config;

impl Guest for Config {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let (status, text) = match http::path(&request).trim_start_matches('/') {
            "" => list(),
            key => get(key),
        };
        http::respond(out, status, &text);
    }
}

fn get(key: &str) -> (u16, String) {
    match runtime::get(key) {
        Ok(Some(value)) => (200, value),
        Ok(None) => (404, format!("no key {key}\n")),
        Err(error) => (500, format!("{error:?}\n")),
    }
}

fn list() -> (u16, String) {
    match runtime::get_all() {
        Ok(mut pairs) => {
            pairs.sort();
            let lines = pairs.iter().map(|(key, value)| format!("{key}={value}\n"));
            (200, lines.collect())
        }
        Err(error) => (500, format!("{error:?}\n")),
    }
}

export!(Config);
