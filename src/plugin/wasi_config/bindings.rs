//! Generated from the interfaces' definitions; one module for each version.

mod rc {
    wasmtime::component::bindgen!({
        path: "wit/deps/config",
        world: "wasi:config/imports",
        imports: { default: trappable },
    });
}

mod draft {
    wasmtime::component::bindgen!({
        path: "wit/config-runtime",
        world: "wasi:config/imports",
        imports: { default: trappable },
    });
}

pub(super) use draft::wasi::config::runtime;
pub(super) use rc::wasi::config::store;
