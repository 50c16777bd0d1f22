//! P11: a call from one component to another that it is composed with, beside the same call within one.

use anyhow::{Context as _, Result};

use super::{Bench, workload};
use crate::{
    figure::Figure,
    load::{self, Request},
    server::Server,
};

/// Calls of one measurement.
const CALLS: u32 = 1_000_000;

/// Asks the front component, which times both.
pub fn composed(bench: &Bench<'_>) -> Result<()> {
    let guests = [
        ("app.wasm", bench.guest("compose-front")),
        ("back.wasm", bench.guest("compose-back")),
    ];
    let manifest = workload("calls", None, "").replace(
        "  hostInterfaces:",
        "    - name: back\n      image: file:./back.wasm\n  hostInterfaces:",
    );
    let server = Server::washlet(&bench.options.washlet, &manifest, &guests)?;
    load::wait_for_route(&Request::get(server.address, "localhost", "/hello"))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.rounds.max(5) {
        for (path, times) in [("calls", &mut ours), ("inner", &mut theirs)] {
            let path = format!("/{path}?n={CALLS}");
            let answer = load::once(&Request::get(server.address, "localhost", &path))?;
            let nanoseconds: f64 = answer
                .split_whitespace()
                .find_map(|word| word.parse().ok())
                .with_context(|| format!("{path} answered {answer:?}"))?;
            times.push(nanoseconds / f64::from(CALLS));
        }
    }
    Figure::ratio(
        "P11",
        "call between composed components ÷ call inside one",
        "ns",
        &ours,
        &theirs,
    )
    .at_most(20.0)
    .print();
    Ok(())
}
