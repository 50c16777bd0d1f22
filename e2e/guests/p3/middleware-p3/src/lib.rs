//! Stands before another handler of its workload: answers `/middleware` itself, at `/own?…` says what it was granted, and hands
//! every other request on.

wit_bindgen::generate!({
    inline: "
        package e2e:middleware-p3;

        world guest {
            import wasi:cli/environment@0.3.0;
            import wasi:filesystem/preopens@0.3.0;
            import wasi:http/client@0.3.0;
            import wasi:http/handler@0.3.0;
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
use wasi::http::{
    handler as next,
    types::{ErrorCode, Request, Response},
};

struct Middleware;

impl Guest for Middleware {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        match request.get_path_with_query() {
            Some(path) if path == "/middleware" => {
                Ok(http::text(200, "from the middleware\n"))
            }
            Some(path) if path.starts_with("/own") => {
                Ok(http::text(200, granted::found(&request).await))
            }
            _ => next::handle(request).await,
        }
    }
}

export!(Middleware);
