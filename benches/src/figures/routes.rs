//! P9: a request's way among 10,000 routes.

use anyhow::Result;

use super::{Bench, workload};
use crate::{
    figure::Figure,
    load::{self, Request},
    server::Server,
};

const ROUTES: usize = 10_000;

/// One server with one route, another with 10,000, which are asked for by turns.
pub fn many(bench: &Bench<'_>) -> Result<()> {
    let guests = [("app.wasm", bench.hello())];
    let host = |index: usize| format!("host-{index}.example.com");
    let serve = |manifest: &str| Server::washlet(&bench.options.washlet, manifest, &guests);
    let one = serve(&workload("one", Some(&host(0)), ""))?;
    let many: String = (0..ROUTES)
        .map(|index| workload(&format!("w{index}"), Some(&host(index)), ""))
        .collect();
    let many = serve(&many)?;
    // By turns in an order that no cache foresees.
    let hosts = |routes: usize| (0..ROUTES).map(move |index| host(index * 7919 % routes));
    let of_one = Request::of_hosts(one.address, hosts(1));
    let of_many = Request::of_hosts(many.address, hosts(ROUTES));
    wait_for_all(&of_many)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.rounds {
        for (request, rates) in [(&of_many, &mut ours), (&of_one, &mut theirs)] {
            rates.push(load::closed(request, 32, bench.options.seconds)?.rate());
        }
    }
    Figure::ratio(
        "P9",
        "10,000 routes ÷ one route",
        "requests/s",
        &ours,
        &theirs,
    )
    .at_least(0.95)
    .print();
    Ok(())
}

/// They start one after the other.
fn wait_for_all(request: &Request) -> Result<()> {
    let begun = std::time::Instant::now();
    while let Err(error) = load::closed(request, 1, 5.0) {
        if begun.elapsed().as_secs() > 120 {
            return Err(error.context("not all routes are there"));
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    Ok(())
}
