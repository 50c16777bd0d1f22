//! How throughput grows with cores.
//!
//! The load shares the servers' cores here, in the same way on one and on two: a thread of it on each, with as many connections.
//! So whatever two workers have in common, in the host or in the system, shows as less than twice the answers.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Bench,
    requests::{self, KEPT},
    workload,
};
use crate::{
    figure::Figure,
    load::{self, Request},
    server::{LOAD_CORE, SERVER_CORE, Server, pin},
};

/// Connections of each thread of the load: together as many as elsewhere.
const CONNECTIONS: usize = requests::CONNECTIONS / 2;

/// Starts a server on these cores.
type Start<'a> = dyn Fn(&[usize]) -> Result<Server> + 'a;

/// Answers a second with two cores ÷ twice those with one.
pub fn two(bench: &Bench<'_>) -> Result<()> {
    ensure!(
        cfg!(target_os = "linux"),
        "it takes threads that stay on their cores"
    );
    let (p2, p3) = (bench.hello(), bench.guest("hello-p3"));
    let washlet = |component: &Path, fields: &str| {
        let guests = [("app.wasm", component.to_path_buf())];
        let manifest = workload("hello", None, fields);
        move |cores: &[usize]| Server::washlet_on(cores, &bench.options.washlet, &manifest, &guests)
    };
    let contenders: [(&str, Box<Start<'_>>); 5] = [
        ("bare hyper", Box::new(Server::bare_on)),
        ("p2 fresh", Box::new(washlet(&p2, ""))),
        ("p2 kept", Box::new(washlet(&p2, KEPT))),
        ("p3 fresh", Box::new(washlet(&p3, ""))),
        ("p3 kept", Box::new(washlet(&p3, KEPT))),
    ];
    for (name, start) in contenders {
        let (one, both): (&[usize], &[usize]) = (&[SERVER_CORE], &[SERVER_CORE, LOAD_CORE]);
        let (mut with_one, mut with_two) = (Vec::new(), Vec::new());
        for _ in 0..bench.options.rounds {
            for (cores, rates) in [(one, &mut with_one), (both, &mut with_two)] {
                // One server at a time: the other's clock would tick on the same cores.
                let server = start(cores)?;
                let request = Request::get(server.address, "localhost", "/");
                load::wait_for_route(&request)?;
                // What is only done once does not count.
                rate(&request, cores, bench.options.seconds / 4.0)?;
                let rate = rate(&request, cores, bench.options.seconds)?;
                rates.push(rate / cores.len() as f64);
            }
        }
        let note = format!("two cores ÷ twice one, load included, {name}");
        Figure::ratio(
            "cores",
            note,
            "requests/s for each core",
            &with_two,
            &with_one,
        )
        .print();
    }
    Ok(())
}

/// Answers a second to a thread on each of these cores.
fn rate(request: &Request, cores: &[usize], seconds: f64) -> Result<f64> {
    let (address, text) = request.first().context("no request")?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = cores
            .iter()
            .map(|core| {
                scope.spawn(move || {
                    pin(*core)?;
                    let request = Request::of(address, [text.to_vec()]);
                    anyhow::Ok(load::closed(&request, CONNECTIONS, seconds)?.rate())
                })
            })
            .collect();
        let rates = threads.into_iter().map(|thread| match thread.join() {
            Ok(rate) => rate,
            Err(_) => bail!("the load panicked"),
        });
        rates.sum()
    })
}
