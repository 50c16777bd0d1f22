//! The lines of `wasi:http` that every guest would repeat. Included by `#[path]`, because each guest
//! has bindings of its own.

#![allow(dead_code, reason = "not every guest needs all of it")]

use crate::wasi::http::types::{Fields, Request, Response};
use crate::{wit_future, wit_stream};
use wit_bindgen::{StreamReader, spawn_local};

/// The value of `name=value` in the query, not decoded.
pub fn query(request: &Request, name: &str) -> Option<String> {
    let target = request.get_path_with_query()?;
    let (_, query) = target.split_once('?')?;
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

/// A response with a whole body.
pub fn text(status: u16, text: impl Into<Vec<u8>>) -> Response {
    let text = text.into();
    let (mut writer, body) = wit_stream::new();
    spawn_local(async move {
        writer.write_all(text).await;
    });
    stream(status, Fields::new(), body)
}

/// A response whose body is still being written, with no trailers after it.
pub fn stream(status: u16, headers: Fields, body: StreamReader<u8>) -> Response {
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers, Some(body), trailers);
    response.set_status_code(status).expect("a valid status");
    response
}
