//! `GET /PATH?level=LEVEL` logs `/PATH` through `wasi:logging` at that level (default `info`), in the
//! context `?context=` (default `e2e`), and answers `ok`.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:logging;

        world guest {
            import wasi:logging/logging@0.1.0-draft;
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use exports::wasi::http::incoming_handler::Guest;
use wasi::http::types::{IncomingRequest, ResponseOutparam};
use wasi::logging::logging::{Level, log};

struct Logging;

impl Guest for Logging {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let level = http::query(&request, "level").unwrap_or("info".into());
        let context = http::query(&request, "context").unwrap_or("e2e".into());
        match parse(&level) {
            Some(level) => {
                log(level, &context, &http::path(&request));
                http::respond(out, 200, "ok\n");
            }
            None => http::respond(out, 400, &format!("no level {level}\n")),
        }
    }
}

fn parse(level: &str) -> Option<Level> {
    Some(match level {
        "trace" => Level::Trace,
        "debug" => Level::Debug,
        "info" => Level::Info,
        "warn" => Level::Warn,
        "error" => Level::Error,
        "critical" => Level::Critical,
        _ => return None,
    })
}

export!(Logging);
