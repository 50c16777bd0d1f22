//! A command: it exports `wasi:cli/run` and nothing that a host could send requests to.

wit_bindgen::generate!({
    inline: "
        package e2e:run-only;

        world guest {
            export wasi:cli/run@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use exports::wasi::cli::run::Guest;

struct RunOnly;

impl Guest for RunOnly {
    fn run() -> Result<(), ()> {
        Ok(())
    }
}

export!(RunOnly);
