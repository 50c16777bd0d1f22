//! The lines of `wasi:http` that every guest would repeat. Included by `#[path]`, because each guest
//! has bindings of its own.

#![allow(dead_code, reason = "not every guest needs all of it")]

use crate::wasi::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

/// The path of a request, without its query.
pub fn path(request: &IncomingRequest) -> String {
    let target = request.path_with_query().unwrap_or_default();
    target.split('?').next().unwrap_or_default().to_owned()
}

/// The value of `name=value` in the query, not decoded.
pub fn query(request: &IncomingRequest, name: &str) -> Option<String> {
    let target = request.path_with_query()?;
    let (_, query) = target.split_once('?')?;
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

/// Answers with a whole body.
pub fn respond(out: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("a valid status");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));

    let stream = body.write().expect("the stream is taken once");
    for chunk in text.as_bytes().chunks(4096) {
        if stream.blocking_write_and_flush(chunk).is_err() {
            return; // The caller hung up.
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
