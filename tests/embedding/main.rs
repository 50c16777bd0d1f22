//! The public API as an embedder uses it: no cluster, nothing from inside the crate. One binary, since each links Wasmtime.
//!
//! - `readme`: the README's example.
//! - `compiling`: in processes of its own, within limits.
//! - `composition`: components of one workload that import each other.
//! - `host`: the host with real components over real HTTP.
//! - `volumes`: ephemeral ones that are full.

#![cfg(all(
    feature = "wasi-http",
    feature = "wasi-config",
    feature = "wasi-logging"
))]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that looks where nothing is should fail"
)]

#[cfg(feature = "washlet")]
mod compiling;
mod composition;
mod host;
mod readme;
mod volumes;
