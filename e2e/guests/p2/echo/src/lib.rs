//! Streams the body of a request back, and its trailers. The response's headers tell the rest of the request: `echo-method`,
//! `echo-scheme`, `echo-authority`, `echo-path` (with the query), and `echo-NAME` for each of its headers; `trailer` is passed on.

wit_bindgen::generate!({
    inline: "
        package e2e:echo;

        world guest {
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use exports::wasi::http::incoming_handler::Guest;
use wasi::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse,
    ResponseOutparam, Scheme,
};

struct Echo;

impl Guest for Echo {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let response = OutgoingResponse::new(headers(&request));
        let body = response.body().expect("the body is taken once");
        ResponseOutparam::set(out, Ok(response));

        let source = request.consume().expect("the body is taken once");
        let from = source.stream().expect("the stream is taken once");
        let to = body.write().expect("the stream is taken once");
        while to.blocking_splice(&from, 64 * 1024).is_ok() {}
        drop((from, to));
        let trailers = IncomingBody::finish(source);
        trailers.subscribe().block();
        // A request that failed leaves the response without its end.
        if let Some(Ok(Ok(trailers))) = trailers.get() {
            let _ = OutgoingBody::finish(body, trailers);
        }
    }
}

fn headers(request: &IncomingRequest) -> Fields {
    let method = match request.method() {
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
    let scheme = match request.scheme() {
        Some(Scheme::Http) => "http".into(),
        Some(Scheme::Https) => "https".into(),
        Some(Scheme::Other(name)) => name,
        None => "none".into(),
    };
    let authority = request.authority().unwrap_or_default();
    let path = request.path_with_query().unwrap_or_default();
    let mut entries = vec![
        ("echo-method".to_owned(), method.into_bytes()),
        ("echo-scheme".to_owned(), scheme.into_bytes()),
        ("echo-authority".to_owned(), authority.into_bytes()),
        ("echo-path".to_owned(), path.into_bytes()),
    ];
    for (name, value) in request.headers().entries() {
        if name == "trailer" {
            entries.push((name.clone(), value.clone()));
        }
        entries.push((format!("echo-{name}"), value));
    }
    Fields::from_list(&entries).expect("they were headers before")
}

export!(Echo);
