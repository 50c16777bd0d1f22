//! Everything Kubernetes: the kinds, their conversion to and from what the host knows, the agent, and the same without a
//! cluster.
//!
//! Kubernetes' types stay in here, and Wasmtime's stay out.

mod admin;
pub mod agent;
pub mod api;
mod backoff;
mod client;
pub mod controller;
pub mod convert;
mod events;
mod lease;
mod owner;
pub mod probe;
pub mod run;
pub mod shutdown;
mod standard;
pub mod status;
pub mod types;

pub use client::ClientError;
pub use standard::{Http, MaxBody, SetupError};
