#![doc = include_str!("../README.md")]

mod content;
pub mod engine;
pub mod fault;
pub mod host;
#[cfg(feature = "oci")]
pub mod oci;
pub mod plugin;
pub mod source;
pub mod spec;
#[cfg(any(feature = "oci", feature = "wasi-http"))]
mod trust;
pub mod types;
#[cfg(feature = "washlet")]
pub mod washlet;
pub mod wit;
