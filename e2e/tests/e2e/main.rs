//! The end-to-end tests: one binary, as each links a lot. A module a subject; each test states one promise.
//!
//! - `harness`: the harness itself, so that a broken test bed is not taken for a broken product.
//! - `playground`: `cargo xtask cluster`.
//! - `capabilities`: what components can do and cannot.
//! - `chart`: the Helm chart, its values and its life.
//! - `commands`: services and jobs.
//! - `controller`: scheduling, loss of hosts, replicas, Services.
//! - `egress`: calls out: connections that are kept, and denials that are seen.
//! - `failures`: every failure of a start, and its healing.
//! - `figures`: how long and how much, printed.
//! - `kinds`: the kinds beside Workload and Host, and how they are scaled.
//! - `languages`: components in C, JavaScript and Python.
//! - `main_job`: a Workload from apply to delete.
//! - `metrics`: failed requests are counted by reason.
//! - `node`: what an agent tells about its node and itself.
//! - `outage`: what goes away comes back.
//! - `policy`: what rights keep people, agents and thieves from.
//! - `protocols`: HTTP/2, HTTPS and limits, by curl.
//! - `real_node`: the chart on a real kubelet.
//! - `rollout`: an edit and a deletion under load.
//! - `run`: `washlet run`.
//! - `service_port`: a workload behind a Service.
//! - `shutdown`: an agent's end, and what keeps it from beginning.
//! - `standby`: two agents on one node.
//! - `volumes`: what components find in their volumes, and how long.
//! - `stage`, `load`, `local`: what most tests stand on.

#![allow(
    clippy::indexing_slicing,
    reason = "a test that looks where nothing is should fail"
)]

mod capabilities;
mod chart;
mod commands;
mod controller;
mod egress;
mod failures;
mod figures;
mod harness;
mod kinds;
mod languages;
mod load;
mod local;
mod main_job;
mod metrics;
mod node;
mod outage;
mod playground;
mod policy;
mod protocols;
mod real_node;
mod rollout;
mod run;
mod service_port;
mod shutdown;
mod stage;
mod standby;
mod volumes;
