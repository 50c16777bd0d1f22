//! `GET /KEY` answers that key of `wasi:config/store`; `GET /` lists all as sorted `key=value` lines.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:config;

        world guest {
            import wasi:config/store@0.2.0-rc.1;
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use exports::wasi::http::incoming_handler::Guest;
use wasi::config::store;
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
    match store::get(key) {
        Ok(Some(value)) => (200, value),
        Ok(None) => (404, format!("no key {key}\n")),
        Err(error) => (500, format!("{error:?}\n")),
    }
}

fn list() -> (u16, String) {
    match store::get_all() {
        Ok(mut pairs) => {
            pairs.sort();
            let lines = pairs.iter().map(|(key, value)| format!("{key}={value}\n"));
            (200, lines.collect())
        }
        Err(error) => (500, format!("{error:?}\n")),
    }
}

export!(Config);
