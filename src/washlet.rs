//! Everything Kubernetes: the kinds, their conversion to and from what the host knows, the agent, and the same without a
//! cluster.
//!
//! Kubernetes' types stay in here, and Wasmtime's stay out.

pub mod agent;
pub mod api;
pub mod convert;
pub mod run;
pub mod shutdown;
mod standard;
pub mod status;
pub mod types;

pub use standard::SetupError;
