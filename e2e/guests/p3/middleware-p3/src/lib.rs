//! Stands before another handler of its workload: answers `/middleware` itself, and hands every other request on.

wit_bindgen::generate!({
    inline: "
        package e2e:middleware-p3;

        world guest {
            import wasi:http/handler@0.3.0;
            export wasi:http/handler@0.3.0;
        }
    ",
    path: "../../../../wit/p3",
    generate_all,
});

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
        if request.get_path_with_query().as_deref() == Some("/middleware") {
            return Ok(http::text(200, "from the middleware\n"));
        }
        next::handle(request).await
    }
}

export!(Middleware);
