//! `GET /?url=http://HOST/PATH` performs that request and relays its status and body. A request that
//! is denied or fails answers 502 with the name of the error code, such as `HttpRequestDenied`.
//! The URL is not decoded and ends at the first `&`.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:fetch;

        world guest {
            import wasi:http/outgoing-handler@0.2.12;
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use exports::wasi::http::incoming_handler::Guest;
use wasi::http::outgoing_handler;
use wasi::http::types::{
    ErrorCode, Fields, IncomingRequest, IncomingResponse, OutgoingBody, OutgoingRequest,
    OutgoingResponse, ResponseOutparam, Scheme,
};

struct Fetch;

impl Guest for Fetch {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let outgoing = http::query(&request, "url").and_then(|url| parse(&url));
        match outgoing.map(send) {
            None => http::respond(out, 400, "give ?url=http://HOST/PATH\n"),
            Some(Ok(response)) => relay(&response, out),
            Some(Err(code)) => {
                let name = format!("{code:?}\n");
                http::respond(out, 502, name.trim_start_matches("ErrorCode::"));
            }
        }
    }
}

fn parse(url: &str) -> Option<OutgoingRequest> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.into()),
    };
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&scheme)).ok()?;
    request.set_authority(Some(authority)).ok()?;
    request
        .set_path_with_query(Some(if path.is_empty() { "/" } else { path }))
        .ok()?;
    Some(request)
}

fn send(request: OutgoingRequest) -> Result<IncomingResponse, ErrorCode> {
    let response = outgoing_handler::handle(request, None)?;
    response.subscribe().block();
    response
        .get()
        .expect("it is ready")
        .expect("it is taken once")
}

fn relay(incoming: &IncomingResponse, out: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::new());
    response
        .set_status_code(incoming.status())
        .expect("a valid status");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));

    let source = incoming.consume().expect("the body is taken once");
    let from = source.stream().expect("the stream is taken once");
    let to = body.write().expect("the stream is taken once");
    while to.blocking_splice(&from, 64 * 1024).is_ok() {}
    drop(to);
    let _ = OutgoingBody::finish(body, None);
}

export!(Fetch);
