//! A command of WASI 0.3 that imports from another component of its workload: it prints what `compose-back` says to `NAME`, lets
//! some time pass, and then does `DO`: `return` (the default), `fail`, or `exit CODE`.

wit_bindgen::generate!({
    inline: "
        package e2e:greet-p3;

        package washlet-test:greeter@1.0.0 {
            interface greet {
                hello: func(name: string) -> string;
                add: func(a: u32, b: u32) -> u32;
            }
        }

        world guest {
            import washlet-test:greeter/greet@1.0.0;
            import wasi:cli/environment@0.3.0;
            import wasi:cli/exit@0.3.0;
            import wasi:cli/stdout@0.3.0;
            import wasi:clocks/monotonic-clock@0.3.0;
            export wasi:cli/run@0.3.0;
        }
    ",
    path: "../../../../wit/p3",
    generate_all,
});

use exports::wasi::cli::run::Guest;
use wasi::{
    cli::{environment::get_environment, exit::exit_with_code, stdout},
    clocks::monotonic_clock::wait_for,
};
use washlet_test::greeter::greet::hello;

struct Greet;

impl Guest for Greet {
    async fn run() -> Result<(), ()> {
        let environment = get_environment();
        let variable = |name: &str| {
            let mut variables = environment.iter();
            let found = variables.find(|(n, _)| n == name);
            found.map_or(String::new(), |(_, value)| value.clone())
        };
        print(hello(&variable("NAME"))).await;
        wait_for(10_000_000).await;
        let to_do = variable("DO");
        match to_do.split_once(' ').unwrap_or((&to_do, "")) {
            ("fail", _) => return Err(()),
            ("exit", code) => exit_with_code(code.parse().unwrap_or(255)),
            _ => {}
        }
        Ok(())
    }
}

async fn print(line: String) {
    let (mut writer, reader) = wit_stream::new();
    let written = stdout::write_via_stream(reader);
    writer.write_all(format!("{line}\n").into_bytes()).await;
    drop(writer);
    let _ = written.await;
}

export!(Greet);
