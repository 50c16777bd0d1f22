//! Generated from the interfaces' definitions; one module for each version.

mod versioned {
    wasmtime::component::bindgen!({
        path: "wit/deps/logging",
        world: "wasi:logging/imports",
    });
}

mod bare {
    wasmtime::component::bindgen!({
        inline: "
            package wasi:logging;
            interface logging {
                enum level { trace, debug, info, warn, error, critical }
                log: func(level: level, context: string, message: string);
            }
            world imports { import logging; }
        ",
        world: "wasi:logging/imports",
    });
}

pub(super) use bare::wasi::logging::logging as unversioned;
pub(super) use versioned::wasi::logging::logging as draft;
