//! Says what it was granted, see `granted.rs`; made to stand behind `middleware-p3`.

wit_bindgen::generate!({
    inline: "
        package e2e:granted-p3;

        world guest {
            import wasi:cli/environment@0.3.0;
            import wasi:filesystem/preopens@0.3.0;
            import wasi:http/client@0.3.0;
            import wasi:sockets/ip-name-lookup@0.3.0;
            import wasi:sockets/types@0.3.0;
            export wasi:http/handler@0.3.0;
        }
    ",
    path: "../../../../wit/p3",
    generate_all,
});

#[path = "../../granted.rs"]
mod granted;
#[path = "../../http.rs"]
mod http;

use exports::wasi::http::handler::Guest;
use wasi::http::types::{ErrorCode, Request, Response};

struct Granted;

impl Guest for Granted {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        Ok(http::text(200, granted::found(&request).await))
    }
}

export!(Granted);
