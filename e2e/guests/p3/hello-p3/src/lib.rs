//! Answers every request with a greeting, over `wasi:http/handler` of WASI 0.3.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:hello-p3;

        world guest {
            export wasi:http/handler@0.3.0;
        }
    ",
    path: "../../../../wit/p3",
    generate_all,
});

use exports::wasi::http::handler::Guest;
use wasi::http::types::{ErrorCode, Request, Response};

struct Hello;

impl Guest for Hello {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        Ok(http::text(200, "Hello from WASI 0.3!\n"))
    }
}

export!(Hello);
