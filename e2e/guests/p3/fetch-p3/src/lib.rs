//! `GET /?url=http://HOST/PATH` performs that request and relays its status and body. A request that
//! is denied or fails answers 502 with the name of the error code, such as `HttpRequestDenied`.
//! The URL is not decoded and ends at the first `&`.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:fetch-p3;

        world guest {
            import wasi:http/client@0.3.0;
            export wasi:http/handler@0.3.0;
        }
    ",
    path: "../../../../wit/p3",
    generate_all,
});

use exports::wasi::http::handler::Guest;
use wasi::http::client;
use wasi::http::types::{ErrorCode, Fields, Request, Response, Scheme};

struct Fetch;

impl Guest for Fetch {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let Some(outgoing) = http::query(&request, "url").and_then(|url| parse(&url)) else {
            return Ok(http::text(400, "give ?url=http://HOST/PATH\n"));
        };
        Ok(match client::send(outgoing).await {
            Ok(response) => relay(response),
            Err(code) => {
                let name = format!("{code:?}\n");
                http::text(502, name.trim_start_matches("ErrorCode::"))
            }
        })
    }
}

fn parse(url: &str) -> Option<Request> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.into()),
    };
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, trailers, None);
    request.set_scheme(Some(&scheme)).ok()?;
    request.set_authority(Some(authority)).ok()?;
    request
        .set_path_with_query(Some(if path.is_empty() { "/" } else { path }))
        .ok()?;
    Some(request)
}

/// Hands the body on as it is: its bytes do not come through this component.
fn relay(incoming: Response) -> Response {
    let status = incoming.get_status_code();
    let (_, received) = wit_future::new(|| Ok(()));
    let (body, _trailers) = Response::consume_body(incoming, received);
    http::stream(status, Fields::new(), body)
}

export!(Fetch);
