//! The other end of [`CompilerProcess`](super::CompilerProcess): a process that compiles one component, and what it may use.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    panic,
    process::ExitCode,
};

use rustix::process::{Resource, Rlimit, setrlimit};

use super::{
    super::{Flavor, config},
    process::Order,
    yield_to_others,
};

/// Exit code for a component that is at fault; what is wrong with it is on standard error.
pub(super) const REFUSED: u8 = 3;

/// How Wasmtime's errors and panics for want of memory read.
pub(super) const OUT_OF_MEMORY: &str = "out of memory";

/// Compiles the component on standard input as `order` says, and writes its machine code to standard output.
///
/// This is the whole of a process that a [`CompilerProcess`](super::CompilerProcess) starts: its program calls this with the
/// arguments that were added to its own, and ends with what is returned.
///
/// The process makes itself one that others need not suffer from: it has a low priority, bounds its own memory and processor
/// time, is the first to be ended when the system is out of memory, and ends with the one that started it.
pub fn compile_worker<I: IntoIterator<Item: AsRef<str>>>(order: I) -> ExitCode {
    let order: Vec<I::Item> = order.into_iter().collect();
    let order: Vec<&str> = order.iter().map(AsRef::as_ref).collect();
    let outcome = Order::parse(&order)
        .ok_or_else(|| (ExitCode::FAILURE, "it was not told what to do".to_owned()))
        .and_then(|order| work(&order));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, why)) => {
            // Nothing can be done about a closed standard error.
            let _ = io::stderr().write_all(why.as_bytes());
            code
        }
    }
}

fn work(order: &Order) -> Result<(), (ExitCode, String)> {
    let failed = |what: &'static str| {
        move |error: io::Error| (ExitCode::FAILURE, format!("{what}: {error}"))
    };
    let mut bytes = Vec::new();
    io::stdin()
        .read_to_end(&mut bytes)
        .map_err(failed("the component cannot be read"))?;
    limit(order).map_err(failed("it cannot limit itself"))?;
    // Each of its threads has memory of its own; as many as compile elsewhere at a time is what there is to do.
    rayon::ThreadPoolBuilder::new()
        .num_threads(order.threads)
        .build_global()
        .map_err(|error| failed("it has no threads")(io::Error::other(error)))?;
    // In one line, as the rest of what becomes a workload's message.
    panic::set_hook(Box::new(|panicked| {
        let place = panicked.location().map(ToString::to_string);
        let _ = writeln!(
            io::stderr(),
            "{} (at {})",
            panicked.payload_as_str().unwrap_or("no message"),
            place.as_deref().unwrap_or("an unknown place")
        );
    }));
    let code = precompile(order.flavor, &bytes).map_err(|error| {
        let no_memory = error.root_cause().to_string().starts_with(OUT_OF_MEMORY);
        let code = if no_memory {
            ExitCode::FAILURE
        } else {
            ExitCode::from(REFUSED)
        };
        (code, format!("{error:#}"))
    })?;
    io::stdout()
        .write_all(&code)
        .map_err(failed("the machine code cannot be written"))
}

fn precompile(flavor: Flavor, bytes: &[u8]) -> wasmtime::Result<Vec<u8>> {
    config::compiler(flavor)?.precompile_component(bytes)
}

/// Bounds what this process uses. It may always use less, so what fails is odd, and nothing should go on without.
fn limit(order: &Order) -> io::Result<()> {
    yield_to_others();
    let limit = |resource, value: u64, grace: u64| {
        let most = Rlimit {
            current: Some(value),
            maximum: Some(value + grace),
        };
        setrlimit(resource, most)
    };
    limit(Resource::Data, order.max_memory, 0)?;
    // The second limit's signal is one that others send too, and says nothing.
    limit(Resource::Cpu, order.max_time.as_secs(), 5)?;
    // What is in memory is somebody's program.
    limit(Resource::Core, 0, 0)?;
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // Some systems hide this file, and then choose by size.
        let _ = fs::write("/proc/self/oom_score_adj", "1000");
    }
    Ok(())
}
