//! A WebAssembly component that answers every HTTP request with a greeting.

// The world says all that this component needs and offers: it serves HTTP, and that is it.
wit_bindgen::generate!({
    inline: "
        package washlet:hello;

        world hello {
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../wit",
    generate_all,
});

use exports::wasi::http::incoming_handler::Guest;
use wasi::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Hello;

impl Guest for Hello {
    fn handle(_request: IncomingRequest, response_out: ResponseOutparam) {
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("the body is taken once");
        ResponseOutparam::set(response_out, Ok(response));

        let stream = body.write().expect("the stream is taken once");
        // The caller may hang up before it has read the greeting; then there is nobody to tell.
        let _ = stream.blocking_write_and_flush(b"Hello from WebAssembly!\n");
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}

export!(Hello);
