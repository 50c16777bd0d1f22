//! P12: what a workload feels of neighbours that misbehave.

use std::time::Duration;

use anyhow::Result;

use super::{Bench, workload};
use crate::{
    figure::Figure,
    load::{self, Request},
    server::{Pest, Server},
};

/// How long those that misbehave are at it before anything is measured.
const SETTLE: Duration = Duration::from_millis(300);

/// Requests a second to the workload that behaves: a tenth of what it could have.
const RATE: f64 = 4_000.0;

/// A workload alone, beside one that spins, beside one that takes all the memory it can get, and beside both. The limit is bare
/// hyper beside processes of low priority that do the same.
pub fn beside(bench: &Bench<'_>) -> Result<()> {
    let guests = [
        ("app.wasm", bench.hello()),
        ("faults.wasm", bench.guest("faults")),
    ];
    let faults = |name: &str| {
        workload(name, Some(name), "requestTimeoutSeconds: 1").replace("app.wasm", "faults.wasm")
    };
    let manifest = [
        workload("good", Some("good"), ""),
        faults("spins"),
        faults("allocates"),
    ]
    .concat();
    let server = Server::washlet(&bench.options.washlet, &manifest, &guests)?;
    let good = Request::get(server.address, "good", "/");
    let spins = Request::get(server.address, "spins", "/spin");
    let allocates = Request::get(server.address, "allocates", "/alloc");
    let (rounds, seconds) = bench.short_rounds(6);
    for request in [
        &good,
        &Request::get(server.address, "spins", "/ok"),
        &Request::get(server.address, "allocates", "/ok"),
    ] {
        load::wait_for_route(request)?;
    }
    let bare = Server::bare()?;
    let limit = Request::get(bare.address, "localhost", "/");
    load::closed(&good, 8, 1.0)?;
    load::closed(&limit, 8, 1.0)?;
    for (name, pests, processes) in [
        ("one that spins", vec![spins.clone()], &["spins"][..]),
        (
            "one that allocates",
            vec![allocates.clone()],
            &["allocates"],
        ),
        ("both", vec![spins, allocates], &["spins", "allocates"]),
    ] {
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        let (mut bare_alone, mut bare_together) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            bare_alone.push(load::open(&limit, 8, RATE, seconds)?.quantile(0.99) * 1e6);
            {
                let _pests: Vec<Pest> = processes
                    .iter()
                    .map(|p| Pest::new(p))
                    .collect::<Result<_>>()?;
                std::thread::sleep(SETTLE);
                bare_together.push(load::open(&limit, 8, RATE, seconds)?.quantile(0.99) * 1e6);
            }
            alone.push(load::open(&good, 8, RATE, seconds)?.quantile(0.99) * 1e6);
            let outcome = load::open_beside(&good, &pests, 8, RATE, seconds)?;
            anyhow::ensure!(outcome.failed == 0, "{} requests failed", outcome.failed);
            together.push(outcome.quantile(0.99) * 1e6);
        }
        Figure::ratio(
            "P12",
            format!("p99 beside {name} ÷ alone"),
            "µs",
            &together,
            &alone,
        )
        .at_most(2.0)
        .print();
        Figure::ratio(
            "P12",
            format!("the same of bare hyper, beside such processes: {name}"),
            "µs",
            &bare_together,
            &bare_alone,
        )
        .print();
    }
    Ok(())
}
