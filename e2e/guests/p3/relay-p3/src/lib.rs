//! Hands each request on to the host that its header `relay-to` names (`http://HOST`), and the answer back: method, path, headers,
//! body and trailers as they are, all of it while it comes. A request that is denied or fails answers 502 with the name of the
//! error code.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:relay-p3;

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
use wit_bindgen::{StreamReader, StreamResult, StreamWriter, spawn_local};

struct Relay;

impl Guest for Relay {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let Some(outgoing) = onward(request) else {
            return Ok(http::text(400, "give relay-to: http://HOST\n"));
        };
        Ok(match client::send(outgoing).await {
            Ok(response) => back(response),
            Err(code) => {
                let name = format!("{code:?}\n");
                http::text(502, name.trim_start_matches("ErrorCode::"))
            }
        })
    }
}

fn onward(request: Request) -> Option<Request> {
    let mut entries = request.get_headers().copy_all();
    let at = entries.iter().position(|(name, _)| name == "relay-to")?;
    let (_, to) = entries.remove(at);
    let to = String::from_utf8(to).ok()?;
    let (scheme, authority) = to.split_once("://")?;
    let scheme = match scheme {
        "https" => Scheme::Https,
        _ => Scheme::Http,
    };
    let (method, path) = (request.get_method(), request.get_path_with_query());
    let headers = Fields::from_list(&entries).ok()?;
    let (_, received) = wit_future::new(|| Ok(()));
    let (from, trailers) = Request::consume_body(request, received);
    let (to, body) = wit_stream::new();
    spawn_local(copy(from, to));
    let (outgoing, _sent) = Request::new(headers, Some(body), trailers, None);
    outgoing.set_method(&method).ok()?;
    outgoing.set_scheme(Some(&scheme)).ok()?;
    outgoing.set_authority(Some(authority)).ok()?;
    outgoing.set_path_with_query(path.as_deref()).ok()?;
    Some(outgoing)
}

fn back(incoming: Response) -> Response {
    let status = incoming.get_status_code();
    let headers = Fields::from_list(&incoming.get_headers().copy_all());
    let (_, received) = wit_future::new(|| Ok(()));
    let (from, trailers) = Response::consume_body(incoming, received);
    let (to, body) = wit_stream::new();
    spawn_local(copy(from, to));
    let headers = headers.expect("they were headers before");
    let (response, _sent) = Response::new(headers, Some(body), trailers);
    response.set_status_code(status).expect("a valid status");
    response
}

/// Through this component's own memory, not by handing the stream on.
async fn copy(mut from: StreamReader<u8>, mut to: StreamWriter<u8>) {
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        let (result, read) = from.read(buffer).await;
        let unsent = to.write_all(read).await;
        // The body ended, or nobody wants more of it.
        if result == StreamResult::Dropped || !unsent.is_empty() {
            return;
        }
        buffer = Vec::with_capacity(64 * 1024);
    }
}

export!(Relay);
