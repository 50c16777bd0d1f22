//! What a component can reach by its grants. Included by `#[path]`, because each guest has bindings of its own.

use crate::wasi::{
    cli::environment,
    config::store,
    http::{
        outgoing_handler,
        types::{Fields, OutgoingRequest, Scheme},
    },
};

/// A key of `wasi:config/store`.
pub fn config(key: &str) -> Option<String> {
    store::get(key).ok().flatten()
}

/// An environment variable.
pub fn variable(name: &str) -> Option<String> {
    let mut all = environment::get_environment().into_iter();
    all.find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The status of a GET, or the name of the error.
pub fn get(authority: &str, path: &str) -> Result<u16, String> {
    let request = OutgoingRequest::new(Fields::new());
    request
        .set_scheme(Some(&Scheme::Http))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(path)))
        .map_err(|()| "no such URL".to_owned())?;
    let code = |error| format!("{error:?}").replace("ErrorCode::", "");
    let response = outgoing_handler::handle(request, None).map_err(code)?;
    response.subscribe().block();
    let response = response.get().expect("it is ready");
    let response = response.expect("it is taken once").map_err(code)?;
    Ok(response.status())
}
