//! Goes wrong in the way that the path names. `/ok`, and every path it does not know, answers `ok`.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:faults;

        world guest {
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use core::arch::wasm32::{memory_grow, memory_size};
use exports::wasi::http::incoming_handler::Guest;
use wasi::http::types::{Fields, IncomingRequest, OutgoingResponse, ResponseOutparam};

const PAGE: usize = 64 * 1024;

struct Faults;

impl Guest for Faults {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match http::path(&request).as_str() {
            "/spin" => loop {
                core::hint::spin_loop();
            },
            "/alloc" => alloc(out),
            "/panic" => panic!("as asked"),
            "/stack" => http::respond(out, 200, &format!("{}\n", stack(0))),
            "/no-response" => drop(out),
            "/drop-body" => drop_body(out, 40 << 10),
            "/drop-early" => drop_body(out, 1),
            "/keep-body" => keep_body(out),
            _ => http::respond(out, 200, "ok\n"),
        }
    }
}

/// Takes and touches memory, 1 MiB at a time, until it is refused; then answers how much it has got.
fn alloc(out: ResponseOutparam) {
    let mut answer = String::with_capacity(PAGE);
    loop {
        let first = memory_grow::<0>(16);
        if first == usize::MAX {
            break;
        }
        for page in first..first + 16 {
            // SAFETY: the page has just been added to the memory, and nothing else uses it.
            unsafe { ((page * PAGE) as *mut u8).write_volatile(1) };
        }
    }
    answer.push_str(&format!("refused at {} MiB\n", memory_size::<0>() / 16));
    http::respond(out, 200, &answer);
}

/// Recurses without end. It is no tail call, and takes call stack only, not linear memory.
#[inline(never)]
fn stack(depth: u64) -> u64 {
    match depth {
        u64::MAX => 0,
        _ => stack(depth + 1).rotate_left(1) ^ depth,
    }
}

/// Begins a response and traps in the middle of its body, with at least so many bytes of it written.
fn drop_body(out: ResponseOutparam, least: usize) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("the stream is taken once");
    let half = b"the first half, and ";
    let mut written = 0;
    while written < least {
        let _ = stream.blocking_write_and_flush(half);
        written += half.len();
    }
    panic!("as asked");
}

/// Begins a response, and returns with its body neither finished nor dropped.
fn keep_body(out: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("the stream is taken once");
    let _ = stream.blocking_write_and_flush(b"the first half, and ");
    drop(stream);
    core::mem::forget(body);
}

export!(Faults);
