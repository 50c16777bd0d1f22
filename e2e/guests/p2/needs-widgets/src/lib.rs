//! Imports an interface that no host offers.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:needs-widgets;

        package acme:widgets@1.2.0 {
            interface api {
                polish: func(widget: string) -> string;
            }
        }

        world guest {
            import acme:widgets/api@1.2.0;
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use acme::widgets::api;
use exports::wasi::http::incoming_handler::Guest;
use wasi::http::types::{IncomingRequest, ResponseOutparam};

struct NeedsWidgets;

impl Guest for NeedsWidgets {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        http::respond(out, 200, &api::polish(&http::path(&request)));
    }
}

export!(NeedsWidgets);
