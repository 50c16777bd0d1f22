//! Times as Kubernetes writes them.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::{host::observed, washlet::api};

/// A time cut to whole seconds, which is all that `metav1.Time` holds.
pub(super) fn seconds(time: SystemTime) -> Timestamp {
    let exact = timestamp(time);
    Timestamp::from_second(exact.as_second()).unwrap_or(exact)
}

/// Cut to microseconds, so that what was written reads back equal.
fn micros(time: SystemTime) -> MicroTime {
    let exact = timestamp(time);
    MicroTime(Timestamp::from_microsecond(exact.as_microsecond()).unwrap_or(exact))
}

fn timestamp(time: SystemTime) -> Timestamp {
    // Fails only thousands of years from now.
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

pub(super) fn timings(timings: &observed::Timings) -> api::Timings {
    let took = timings
        .assigned
        .zip(timings.started)
        .and_then(|(from, to)| to.duration_since(from).ok());
    api::Timings {
        assigned: timings.assigned.map(micros),
        pulled: timings.fetched.map(micros),
        compiled: timings.compiled.map(micros),
        linked: timings.linked.map(micros),
        started: timings.started.map(micros),
        total: took.map(readable),
    }
}

/// `0.8ms`, `12.4ms`, `1.25s`.
fn readable(took: Duration) -> String {
    let seconds = took.as_secs_f64();
    if seconds < 1.0 {
        format!("{:.1}ms", seconds * 1000.0)
    } else {
        format!("{seconds:.2}s")
    }
}
