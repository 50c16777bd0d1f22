//! Components from OCI registries: pull secrets, the distribution protocol, and the node's image store.
//!
//! [`Puller`] is the front. A pull looks into the store, asks the registry for the manifest with the workload's own
//! credentials if the pull policy or the proof of access demands it, and downloads the one WebAssembly layer.
//!
//! # Why not a ready-made client
//! The protocol's client side is small: two kinds of requests and a token exchange. `oci-client`, the crate for it, does much
//! more (it pushes), and less where it matters here: it drops `Retry-After` and the status of refusals, answers a failed token
//! exchange with an anonymous request (so a wrong password is not seen), knows no identity tokens, mirrors, or limits on
//! manifests, and keeps one credential for each registry.

mod auth;
mod client;
mod content;
pub mod credentials;
mod failure;
mod flight;
mod hosts;
mod limits;
mod manifest;
mod puller;
mod request;
mod session;
mod store;
mod transport;

pub use failure::{Attempt, Failure, PullError};
pub use hosts::{HostsError, HostsProblem};
pub use manifest::ManifestError;
pub use puller::{Puller, PullerConfig};
pub use request::{RequestError, RequestProblem, Step};
pub use store::StoreError;
pub use transport::TransportError;

#[cfg(test)]
mod tests;
