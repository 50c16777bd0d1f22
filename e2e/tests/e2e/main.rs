//! The end-to-end tests: one binary, as each links a lot. A module a subject; each test states one promise.
//!
//! - `harness`: the harness itself, so that a broken test bed is not taken for a broken product.
//! - `playground`: `cargo xtask cluster`.
//! - `main_job`: a Workload from apply to delete.
//! - `stage`: what most tests stand on.

mod harness;
mod main_job;
mod playground;
mod stage;
