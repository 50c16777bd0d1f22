//! Streams the body of a request back, and its trailers. The response's headers tell the rest of the request: `echo-method`,
//! `echo-scheme`, `echo-authority`, `echo-path` (with the query), and `echo-NAME` for each of its headers; `trailer` is passed on.

wit_bindgen::generate!({
    inline: "
        package e2e:echo-p3;

        world guest {
            export wasi:http/handler@0.3.0;
        }
    ",
    path: "../../../../wit/p3",
    generate_all,
});

use exports::wasi::http::handler::Guest;
use wasi::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use wit_bindgen::{StreamReader, StreamResult, StreamWriter, spawn_local};

struct Echo;

impl Guest for Echo {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let headers = headers(&request);
        let (_, received) = wit_future::new(|| Ok(()));
        let (from, trailers) = Request::consume_body(request, received);
        let (to, body) = wit_stream::new();
        spawn_local(copy(from, to));
        let (response, _) = Response::new(headers, Some(body), trailers);
        Ok(response)
    }
}

async fn copy(mut from: StreamReader<u8>, mut to: StreamWriter<u8>) {
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        let (result, read) = from.read(buffer).await;
        let unsent = to.write_all(read).await;
        // The body ended, or the caller hung up.
        if result == StreamResult::Dropped || !unsent.is_empty() {
            return;
        }
        buffer = Vec::with_capacity(64 * 1024);
    }
}

fn headers(request: &Request) -> Fields {
    let method = match request.get_method() {
        Method::Get => "GET".into(),
        Method::Head => "HEAD".into(),
        Method::Post => "POST".into(),
        Method::Put => "PUT".into(),
        Method::Delete => "DELETE".into(),
        Method::Connect => "CONNECT".into(),
        Method::Options => "OPTIONS".into(),
        Method::Trace => "TRACE".into(),
        Method::Patch => "PATCH".into(),
        Method::Other(name) => name,
    };
    let scheme = match request.get_scheme() {
        Some(Scheme::Http) => "http".into(),
        Some(Scheme::Https) => "https".into(),
        Some(Scheme::Other(name)) => name,
        None => "none".into(),
    };
    let authority = request.get_authority().unwrap_or_default();
    let path = request.get_path_with_query().unwrap_or_default();
    let mut entries = vec![
        ("echo-method".to_owned(), method.into_bytes()),
        ("echo-scheme".to_owned(), scheme.into_bytes()),
        ("echo-authority".to_owned(), authority.into_bytes()),
        ("echo-path".to_owned(), path.into_bytes()),
    ];
    for (name, value) in request.get_headers().copy_all() {
        if name == "trailer" {
            entries.push((name.clone(), value.clone()));
        }
        entries.push((format!("echo-{name}"), value));
    }
    Fields::from_list(&entries).expect("they were headers before")
}

export!(Echo);
