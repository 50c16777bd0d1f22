//! A command that does what its environment says. `PRINT` is printed first; `SLEEP_MS` is slept, by the clock; then `DO` is done:
//! `return` (the default), `fail`, `trap`, `spin`, `grow` (takes memory until it is refused, and then gives up), `forever`
//! (prints `PRINT` again and again, five times a second), or `exit CODE`.

wit_bindgen::generate!({
    inline: "
        package e2e:service;

        world guest {
            import wasi:cli/environment@0.2.12;
            import wasi:cli/exit@0.2.12;
            import wasi:cli/stdout@0.2.12;
            import wasi:clocks/monotonic-clock@0.2.12;
            export wasi:cli/run@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use core::arch::wasm32::memory_grow;
use exports::wasi::cli::run::Guest;
use wasi::{
    cli::{environment::get_environment, exit::exit_with_code, stdout::get_stdout},
    clocks::monotonic_clock::subscribe_duration,
};

struct Service;

impl Guest for Service {
    fn run() -> Result<(), ()> {
        let environment = get_environment();
        let variable = |name: &str| {
            let mut variables = environment.iter();
            let found = variables.find(|(n, _)| n == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        print(variable("PRINT"));
        if let Ok(pause) = variable("SLEEP_MS").parse() {
            sleep(pause);
        }
        match variable("DO").split_once(' ').unwrap_or((variable("DO"), "")) {
            ("fail", _) => Err(()),
            ("trap", _) => panic!("as asked"),
            ("spin", _) => loop {
                core::hint::spin_loop();
            },
            ("grow", _) => {
                while memory_grow::<0>(16) != usize::MAX {}
                panic!("no more memory")
            }
            ("forever", _) => loop {
                sleep(200);
                print(variable("PRINT"));
            },
            ("exit", code) => {
                exit_with_code(code.parse().unwrap_or(255));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn print(line: &str) {
    if !line.is_empty() {
        let line = format!("{line}\n");
        let _ = get_stdout().blocking_write_and_flush(line.as_bytes());
    }
}

fn sleep(millis: u64) {
    subscribe_duration(millis * 1_000_000).block();
}

export!(Service);
