//! The end-to-end tests: one binary, as each links a lot. A module a subject; each test states one promise.
//!
//! - `harness`: the harness itself, so that a broken test bed is not taken for a broken product.
//! - `playground`: `cargo xtask cluster`.
//! - `capabilities`: what components can do and cannot.
//! - `failures`: every failure of a start, and its healing.
//! - `figures`: how long and how much, printed.
//! - `main_job`: a Workload from apply to delete.
//! - `node`: what an agent tells about its node and itself.
//! - `outage`: what goes away comes back.
//! - `rollout`: an edit and a deletion under load.
//! - `run`: `washlet run`.
//! - `shutdown`: an agent's end, and what keeps it from beginning.
//! - `stage`, `load`, `local`: what most tests stand on.

#![allow(
    clippy::indexing_slicing,
    reason = "a test that looks where nothing is should fail"
)]

mod capabilities;
mod failures;
mod figures;
mod harness;
mod load;
mod local;
mod main_job;
mod node;
mod outage;
mod playground;
mod rollout;
mod run;
mod shutdown;
mod stage;
