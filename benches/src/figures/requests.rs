//! Requests a second: a fresh instance for each, and instances that are kept.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Bench, workload};
use crate::{
    figure::{Figure, median},
    load::{self, Request},
    server::Server,
};

/// Connections of the load.
pub(super) const CONNECTIONS: usize = 32;

/// A kept instance for each connection, each for one request at a time.
pub(super) const KEPT: &str = "poolSize: 32";

/// The same for components that can serve several at a time.
const SHARED: &str = "poolSize: 32\nmaxConcurrency: 16";

/// `wasmtime serve` as it is without reuse.
const FRESH: &[&str] = &["--max-instance-reuse-count", "1"];

/// As it is at its best for components that block.
const REUSED: &[&str] = &["--max-instance-reuse-count", "1000000000"];

const CONCURRENT: &[&str] = &["-S", "p3=y", "-W", "component-model-async=y"];

/// One of those that are compared: its server, and its answers a second in each round.
struct Contender {
    name: &'static str,
    server: Server,
    rates: Vec<f64>,
}

/// P1 to P4.
pub fn hello(bench: &Bench<'_>) -> Result<()> {
    let mut all = contenders(bench)?;
    rounds(bench, &mut all)?;
    for (figure, name, ours, theirs, target) in RATIOS {
        let found = |name: &str| all.iter().find(|contender| contender.name == name);
        let (Some(ours), Some(theirs)) = (found(ours), found(theirs)) else {
            continue;
        };
        if bench.wants(&[figure]) {
            let ratio = Figure::ratio(figure, name, "requests/s", &ours.rates, &theirs.rates);
            match target {
                Some(target) => ratio.at_least(target).print(),
                None => ratio.print(),
            }
        }
    }
    if bench.wants(&["P4"]) {
        // The others end first: their clocks tick on the same core.
        all.retain(|contender| TAILS.contains(&contender.name));
        tail(bench, &all)?;
    }
    Ok(())
}

/// A figure, what it is, who is compared with whom, and the least that it is to be.
type Ratio = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Option<f64>,
);

const RATIOS: [Ratio; 16] = [
    (
        "P1",
        "fresh instance ÷ wasmtime serve, p2",
        "p2 fresh",
        "wasmtime p2 fresh",
        Some(4.0),
    ),
    (
        "P1",
        "fresh instance ÷ wasmtime serve, p3",
        "p3 fresh",
        "wasmtime p3 fresh",
        Some(2.5),
    ),
    (
        "P1",
        "fresh instance ÷ a bare program of hyper and Wasmtime, p2",
        "p2 fresh",
        "bare wasmtime p2 fresh",
        Some(0.9),
    ),
    (
        "P1",
        "fresh instance ÷ a bare program of hyper and Wasmtime, p3",
        "p3 fresh",
        "bare wasmtime p3 fresh",
        Some(0.9),
    ),
    (
        "P2",
        "kept instance ÷ wasmtime serve, p2",
        "p2 kept",
        "wasmtime p2 kept",
        Some(1.8),
    ),
    (
        "P2",
        "kept instance ÷ wasmtime serve, p3",
        "p3 kept",
        "wasmtime p3 kept",
        Some(1.5),
    ),
    (
        "P1",
        "that bare program, fresh ÷ wasmtime serve, p2",
        "bare wasmtime p2 fresh",
        "wasmtime p2 fresh",
        None,
    ),
    (
        "P1",
        "that bare program, fresh ÷ wasmtime serve, p3",
        "bare wasmtime p3 fresh",
        "wasmtime p3 fresh",
        None,
    ),
    (
        "P2",
        "that bare program, kept ÷ wasmtime serve, p2",
        "bare wasmtime p2 kept",
        "wasmtime p2 kept",
        None,
    ),
    (
        "P2",
        "that bare program, kept ÷ wasmtime serve, p3",
        "bare wasmtime p3 kept",
        "wasmtime p3 kept",
        None,
    ),
    (
        "P2",
        "16 requests at a time in a kept instance ÷ wasmtime serve, p3",
        "p3 shared",
        "wasmtime p3 kept",
        None,
    ),
    (
        "P2",
        "kept instance ÷ a bare program of hyper and Wasmtime, p2",
        "p2 kept",
        "bare wasmtime p2 kept",
        Some(0.9),
    ),
    (
        "P2",
        "kept instance ÷ a bare program of hyper and Wasmtime, p3",
        "p3 kept",
        "bare wasmtime p3 kept",
        Some(0.9),
    ),
    (
        "P3",
        "kept instance ÷ bare hyper, p2",
        "p2 kept",
        "bare hyper",
        Some(0.6),
    ),
    (
        "P3",
        "fresh instance ÷ bare hyper, p2",
        "p2 fresh",
        "bare hyper",
        None,
    ),
    (
        "P3",
        "that bare program, kept ÷ bare hyper, p2",
        "bare wasmtime p2 kept",
        "bare hyper",
        None,
    ),
];

/// All servers.
fn contenders(bench: &Bench<'_>) -> Result<Vec<Contender>> {
    let (p2, p3) = (bench.hello(), bench.guest("hello-p3"));
    let washlet = |component: &Path, fields: &str| {
        let guests = [("app.wasm", component.to_path_buf())];
        Server::washlet(
            &bench.options.washlet,
            &workload("hello", None, fields),
            &guests,
        )
    };
    let mut all = vec![
        Contender::new("bare hyper", Server::bare()?),
        Contender::new("p2 fresh", washlet(&p2, "")?),
        Contender::new("p2 kept", washlet(&p2, KEPT)?),
        Contender::new("p3 fresh", washlet(&p3, "")?),
        Contender::new("p3 kept", washlet(&p3, KEPT)?),
        Contender::new("p3 shared", washlet(&p3, SHARED)?),
        Contender::new(
            "bare wasmtime p2 fresh",
            Server::bare_component(&p2, "p2", "fresh")?,
        ),
        Contender::new(
            "bare wasmtime p2 kept",
            Server::bare_component(&p2, "p2", "kept")?,
        ),
        Contender::new(
            "bare wasmtime p3 fresh",
            Server::bare_component(&p3, "p3", "fresh")?,
        ),
        Contender::new(
            "bare wasmtime p3 kept",
            Server::bare_component(&p3, "p3", "kept")?,
        ),
    ];
    if let Some(wasmtime) = &bench.options.wasmtime {
        let serve = |component, options: &[&[&str]]| {
            Server::wasmtime(wasmtime, component, &options.concat())
        };
        all.push(Contender::new("wasmtime p2 fresh", serve(&p2, &[FRESH])?));
        all.push(Contender::new("wasmtime p2 kept", serve(&p2, &[REUSED])?));
        all.push(Contender::new(
            "wasmtime p3 fresh",
            serve(&p3, &[FRESH, CONCURRENT])?,
        ));
        all.push(Contender::new(
            "wasmtime p3 kept",
            serve(&p3, &[REUSED, CONCURRENT])?,
        ));
    }
    Ok(all)
}

/// Those whose latencies are measured.
const TAILS: [&str; 3] = ["p2 fresh", "bare wasmtime p2 fresh", "bare hyper"];

/// P4: latencies at half of the peak load. Beside it those of the bare programs, at half of their own peaks, and hyper's at as many
/// requests: what the load and the machine add.
fn tail(bench: &Bench<'_>, all: &[Contender]) -> Result<()> {
    let found = |name: &str| all.iter().find(|contender| contender.name == name);
    let fresh = found("p2 fresh").context("no p2 fresh")?;
    let bare = found("bare hyper").context("no bare hyper")?;
    let least = found("bare wasmtime p2 fresh").context("no bare program")?;
    let half = |contender: &Contender| median(&contender.rates) / 2.0;
    let mut tails = [
        ("half of its peak, p2 fresh", fresh, half(fresh)),
        (
            "half of its peak, a bare program of hyper and Wasmtime",
            least,
            half(least),
        ),
        ("half of its peak, bare hyper", bare, half(bare)),
        ("as many requests, bare hyper", bare, half(fresh)),
    ]
    .map(|tail| (tail, Vec::new(), Vec::new()));
    // A round is so short that what the machine does once a second is not in most of them; and each begins with another of these,
    // so that such a thing does not fall to the same one again and again.
    let (rounds, seconds) = bench.short_rounds(12);
    for round in 0..rounds {
        let turn = round % tails.len();
        let (before, from) = tails.split_at_mut(turn);
        for ((_, contender, rate), p99, p50) in from.iter_mut().chain(before) {
            let outcome = load::open(&request(contender), CONNECTIONS, *rate, seconds)?;
            p99.push(outcome.quantile(0.99) * 1e6);
            p50.push(outcome.quantile(0.5) * 1e6);
        }
    }
    for ((name, contender, _), p99, p50) in tails {
        let figure = Figure::ratio("P4", format!("p99 ÷ p50 at {name}"), "µs", &p99, &p50);
        if contender.name == fresh.name {
            figure.at_most(3.0).print();
        } else {
            figure.print();
        }
    }
    Ok(())
}

/// P5: bodies in both directions.
pub fn echo(bench: &Bench<'_>) -> Result<()> {
    const MIB: usize = 1 << 20;
    let bare = Server::bare()?;
    for (version, guest) in [("p2", "echo"), ("p3", "echo-p3")] {
        let guests = [("app.wasm", bench.guest(guest))];
        let manifest = workload("echo", None, "");
        let ours = Server::washlet(&bench.options.washlet, &manifest, &guests)?;
        let body = vec![b'x'; MIB];
        load::wait_for_route(&Request::get(ours.address, "localhost", "/"))?;
        let (mut us, mut limit) = (Vec::new(), Vec::new());
        for _ in 0..bench.options.rounds {
            for (server, rates) in [(&ours, &mut us), (&bare, &mut limit)] {
                let request = Request::post(server.address, "localhost", &body);
                let outcome = load::closed(&request, 4, bench.options.seconds)?;
                rates.push(outcome.throughput() / 1e6);
            }
        }
        Figure::ratio(
            "P5",
            format!("1 MiB echo ÷ bare hyper, {version}"),
            "MB/s",
            &us,
            &limit,
        )
        .at_least(0.4)
        .print();
    }
    Ok(())
}

impl Contender {
    fn new(name: &'static str, server: Server) -> Self {
        Self {
            name,
            server,
            rates: Vec::new(),
        }
    }
}

/// All by turns, after one round that does not count.
fn rounds(bench: &Bench<'_>, all: &mut [Contender]) -> Result<()> {
    for contender in all.iter() {
        if !contender.name.starts_with("bare") {
            load::wait_for_route(&request(contender))?;
        }
        load::closed(
            &request(contender),
            CONNECTIONS,
            bench.options.seconds / 4.0,
        )
        .with_context(|| contender.name)?;
    }
    for round in 1..=bench.options.rounds {
        for contender in all.iter_mut() {
            let outcome = load::closed(&request(contender), CONNECTIONS, bench.options.seconds)
                .with_context(|| contender.name)?;
            eprintln!(
                "  round {round}: {:<22} {:>8.0}/s",
                contender.name,
                outcome.rate()
            );
            contender.rates.push(outcome.rate());
        }
    }
    Ok(())
}

fn request(contender: &Contender) -> Request {
    Request::get(contender.server.address, "localhost", "/")
}
