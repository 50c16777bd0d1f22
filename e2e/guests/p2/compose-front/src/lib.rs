//! Calls another component of its workload, `compose-back`, which it imports.
//!
//! `/hello?name=N`: its greeting. `/calls?n=N`: how many nanoseconds N calls of its `add` took; `/inner?n=N`: as many calls of
//! the same function in here. `/front?…` and `/back?…`: what this component, or the other one, finds at
//! `config=KEY`, `variable=NAME`, `connect=IPV4:PORT`, `lookup=NAME`, `authority=HOST:PORT` (the status of a GET of
//! `path=/PATH`), or without any of these, the directories that it was given.

#[path = "../../granted.rs"]
mod granted;
#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:compose-front;

        package washlet-test:greeter@1.0.0 {
            interface greet {
                hello: func(name: string) -> string;
                add: func(a: u32, b: u32) -> u32;
            }
            interface granted {
                config: func(key: string) -> option<string>;
                variable: func(name: string) -> option<string>;
                get: func(authority: string, path: string) -> result<u16, string>;
                directories: func() -> string;
                connect: func(to: string) -> string;
                lookup: func(name: string) -> string;
            }
        }

        world guest {
            import wasi:clocks/monotonic-clock@0.2.12;
            import wasi:config/store@0.2.0-rc.1;
            import wasi:cli/environment@0.2.12;
            import wasi:filesystem/preopens@0.2.12;
            import wasi:http/outgoing-handler@0.2.12;
            import wasi:sockets/instance-network@0.2.12;
            import wasi:sockets/ip-name-lookup@0.2.12;
            import wasi:sockets/tcp-create-socket@0.2.12;
            import washlet-test:greeter/greet@1.0.0;
            import washlet-test:greeter/granted@1.0.0;
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use std::hint::black_box;

use exports::wasi::http::incoming_handler::Guest;
use wasi::{
    clocks::monotonic_clock,
    http::types::{IncomingRequest, ResponseOutparam},
};
use washlet_test::greeter::{granted as back, greet};

struct Front;

impl Guest for Front {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let query = |name: &str| http::query(&request, name);
        let n = query("n").and_then(|n| n.parse().ok()).unwrap_or(1);
        let text = match http::path(&request).as_str() {
            "/hello" => greet::hello(&query("name").unwrap_or_default()),
            "/calls" => timed(n, greet::add),
            "/inner" => timed(n, add),
            "/front" => found(&request, &OWN),
            "/back" => found(&request, &OTHER),
            _ => return http::respond(out, 404, "no such path\n"),
        };
        http::respond(out, 200, &text);
    }
}

/// Nanoseconds for `n` calls that build upon each other.
fn timed(n: u32, add: fn(u32, u32) -> u32) -> String {
    let start = monotonic_clock::now();
    let mut sum = 0;
    for i in 0..n {
        sum = add(sum, i);
    }
    let took = monotonic_clock::now() - start;
    let right = (0..n).fold(0, u32::wrapping_add);
    assert_eq!(sum, right);
    took.to_string()
}

/// What the other component does for a call, in here.
#[inline(never)]
fn add(a: u32, b: u32) -> u32 {
    black_box(a).wrapping_add(b)
}

/// What a component can do by its grants.
struct Granted {
    config: fn(&str) -> Option<String>,
    variable: fn(&str) -> Option<String>,
    get: fn(&str, &str) -> Result<u16, String>,
    directories: fn() -> String,
    connect: fn(&str) -> String,
    lookup: fn(&str) -> String,
}

const OWN: Granted = Granted {
    config: granted::config,
    variable: granted::variable,
    get: granted::get,
    directories: granted::directories,
    connect: granted::connect,
    lookup: granted::lookup,
};

const OTHER: Granted = Granted {
    config: back::config,
    variable: back::variable,
    get: back::get,
    directories: back::directories,
    connect: back::connect,
    lookup: back::lookup,
};

fn found(request: &IncomingRequest, by: &Granted) -> String {
    let query = |name: &str| http::query(request, name);
    let value = |value: Option<String>| value.unwrap_or("nothing".to_owned());
    if let Some(key) = query("config") {
        value((by.config)(&key))
    } else if let Some(name) = query("variable") {
        value((by.variable)(&name))
    } else if let Some(to) = query("connect") {
        (by.connect)(&to)
    } else if let Some(name) = query("lookup") {
        (by.lookup)(&name)
    } else if let Some(authority) = query("authority") {
        match (by.get)(&authority, &query("path").unwrap_or("/".to_owned())) {
            Ok(status) => status.to_string(),
            Err(error) => error,
        }
    } else {
        (by.directories)()
    }
}

export!(Front);
