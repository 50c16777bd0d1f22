//! Hands each request on to the host that its header `relay-to` names (`http://HOST`), and the answer back: method, path, headers,
//! body and trailers as they are, all of it while it comes. A request that is denied or fails answers 502 with the name of the
//! error code.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:relay;

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
    ErrorCode, Fields, FutureIncomingResponse, FutureTrailers, IncomingBody, IncomingRequest,
    IncomingResponse, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme,
};
use wasi::io::poll::{Pollable, poll};
use wasi::io::streams::{InputStream, OutputStream};

struct Relay;

impl Guest for Relay {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let Some(outgoing) = onward(&request) else {
            return http::respond(out, 400, "give relay-to: http://HOST\n");
        };
        let body = outgoing.body().expect("the body is taken once");
        let source = request.consume().expect("the body is taken once");
        match outgoing_handler::handle(outgoing, None) {
            Ok(response) => relay(Copy::new(source, body), response, out),
            Err(code) => fail(out, &code),
        }
    }
}

fn onward(request: &IncomingRequest) -> Option<OutgoingRequest> {
    let mut entries = request.headers().entries();
    let at = entries.iter().position(|(name, _)| name == "relay-to")?;
    let (_, to) = entries.remove(at);
    let to = String::from_utf8(to).ok()?;
    let (scheme, authority) = to.split_once("://")?;
    let scheme = match scheme {
        "https" => Scheme::Https,
        _ => Scheme::Http,
    };
    let outgoing = OutgoingRequest::new(Fields::from_list(&entries).ok()?);
    outgoing.set_method(&request.method()).ok()?;
    outgoing.set_scheme(Some(&scheme)).ok()?;
    outgoing.set_authority(Some(authority)).ok()?;
    let path = request.path_with_query();
    outgoing.set_path_with_query(path.as_deref()).ok()?;
    Some(outgoing)
}

/// Copies the request on, and the answer back as soon as there is one.
fn relay(mut request: Copy, response: FutureIncomingResponse, out: ResponseOutparam) {
    let mut out = Some(out);
    let mut answer: Option<Copy> = None;
    let coming = response.subscribe();
    loop {
        let mut waits = Vec::new();
        waits.extend(request.step());
        if out.is_some() && coming.ready() {
            match response.get().expect("it is ready").expect("it is taken once") {
                Ok(incoming) => answer = Some(back(incoming, out.take().expect("there is none"))),
                Err(code) => return fail(out.take().expect("there is none"), &code),
            }
        }
        if let Some(answer) = &mut answer {
            waits.extend(answer.step());
        }
        let mut all: Vec<&Pollable> = waits.iter().collect();
        if out.is_some() {
            all.push(&coming);
        }
        if all.is_empty() {
            return;
        }
        poll(&all);
    }
}

fn back(incoming: IncomingResponse, out: ResponseOutparam) -> Copy {
    let headers = Fields::from_list(&incoming.headers().entries());
    let response = OutgoingResponse::new(headers.expect("they were headers before"));
    let status = incoming.status();
    response.set_status_code(status).expect("a valid status");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    Copy::new(incoming.consume().expect("the body is taken once"), body)
}

fn fail(out: ResponseOutparam, code: &ErrorCode) {
    let name = format!("{code:?}\n");
    http::respond(out, 502, name.trim_start_matches("ErrorCode::"));
}

/// A body on its way.
enum Copy {
    Bytes {
        // The streams first: they are children of the bodies.
        from: InputStream,
        to: OutputStream,
        source: IncomingBody,
        body: OutgoingBody,
    },
    Trailers(FutureTrailers, OutgoingBody),
    Done,
}

impl Copy {
    fn new(source: IncomingBody, body: OutgoingBody) -> Self {
        Self::Bytes {
            from: source.stream().expect("the stream is taken once"),
            to: body.write().expect("the stream is taken once"),
            source,
            body,
        }
    }

    /// Goes on as far as it can without waiting; what it waits for then, if it is not done.
    fn step(&mut self) -> Option<Pollable> {
        loop {
            match self {
                Self::Done => return None,
                Self::Trailers(trailers, _) => {
                    let Some(came) = trailers.get() else {
                        return Some(trailers.subscribe());
                    };
                    if let (Ok(Ok(trailers)), Self::Trailers(_, body)) =
                        (came, std::mem::replace(self, Self::Done))
                    {
                        let _ = OutgoingBody::finish(body, trailers);
                    }
                }
                Self::Bytes { from, to, .. } => {
                    let Ok(room) = to.check_write() else {
                        // Nobody wants more of it.
                        *self = Self::Done;
                        continue;
                    };
                    if room == 0 {
                        return Some(to.subscribe());
                    }
                    match from.read(room.min(64 * 1024)) {
                        Ok(bytes) if bytes.is_empty() => return Some(from.subscribe()),
                        Ok(bytes) => {
                            let _ = to.write(&bytes);
                        }
                        Err(_) => self.end(),
                    }
                }
            }
        }
    }

    /// The bytes have ended. If they failed, so do the trailers.
    fn end(&mut self) {
        if let Self::Bytes {
            from,
            to,
            source,
            body,
        } = std::mem::replace(self, Self::Done)
        {
            drop((from, to));
            *self = Self::Trailers(IncomingBody::finish(source), body);
        }
    }
}

export!(Relay);
