//! What `compose-front` imports: greetings and sums, and what this component is granted.

wit_bindgen::generate!({
    inline: "
        package e2e:compose-back;

        package washlet-test:greeter@1.0.0 {
            interface greet {
                hello: func(name: string) -> string;
                add: func(a: u32, b: u32) -> u32;
            }
            interface granted {
                /// A key of `wasi:config/store`.
                config: func(key: string) -> option<string>;
                /// An environment variable.
                variable: func(name: string) -> option<string>;
                /// The status of a GET, or the name of the error.
                get: func(authority: string, path: string) -> result<u16, string>;
                /// The directories that it was given.
                directories: func() -> string;
                /// What comes of a connection to this address.
                connect: func(to: string) -> string;
                /// What comes of looking this name up.
                lookup: func(name: string) -> string;
            }
        }

        world guest {
            import wasi:config/store@0.2.0-rc.1;
            import wasi:cli/environment@0.2.12;
            import wasi:filesystem/preopens@0.2.12;
            import wasi:http/outgoing-handler@0.2.12;
            import wasi:sockets/instance-network@0.2.12;
            import wasi:sockets/ip-name-lookup@0.2.12;
            import wasi:sockets/tcp-create-socket@0.2.12;
            export washlet-test:greeter/greet@1.0.0;
            export washlet-test:greeter/granted@1.0.0;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

#[path = "../../granted.rs"]
mod granted;

use exports::washlet_test::greeter::{granted::Guest as Granted, greet::Guest as Greet};

struct Back;

impl Greet for Back {
    fn hello(name: String) -> String {
        format!("hello {name}, from the back")
    }

    fn add(a: u32, b: u32) -> u32 {
        a.wrapping_add(b)
    }
}

impl Granted for Back {
    fn config(key: String) -> Option<String> {
        granted::config(&key)
    }

    fn variable(name: String) -> Option<String> {
        granted::variable(&name)
    }

    fn get(authority: String, path: String) -> Result<u16, String> {
        granted::get(&authority, &path)
    }

    fn directories() -> String {
        granted::directories()
    }

    fn connect(to: String) -> String {
        granted::connect(&to)
    }

    fn lookup(name: String) -> String {
        granted::lookup(&name)
    }
}

export!(Back);
