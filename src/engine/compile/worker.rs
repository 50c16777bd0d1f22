//! The other end of [`CompilerProcess`](super::CompilerProcess): a process that compiles one component, and what it may use.

use std::{
    io::{self, Read as _, Write as _},
    panic, process,
    process::ExitCode,
    thread,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{
    super::{Flavor, config},
    process::Order,
    yield_to_others,
};

/// Exit code for a component that is at fault; what is wrong with it is on standard error.
pub(super) const REFUSED: u8 = 3;

/// Exit code for one that takes more memory than there is for it.
pub(super) const TOO_LARGE: u8 = 4;

/// How Wasmtime's errors and panics for want of memory read.
pub(super) const OUT_OF_MEMORY: &str = "out of memory";

/// Stack of the thread that waits for the end of the parent, in bytes.
const SMALL_STACK: usize = 64 << 10;

/// An exit code, and the words that go with it.
type Failure = (u8, String);

/// Compiles the component on standard input as `order` says, and writes its machine code to standard output.
///
/// This is the whole of a process that a [`CompilerProcess`](super::CompilerProcess) starts: its program calls this with the
/// arguments that were added to its own, and ends with what is returned.
///
/// The process makes itself one that others need not suffer from: it has a low priority, bounds its own memory, processor time
/// and output, and ends when the one that started it closes its standard input, as happens at the latest when that one ends.
pub fn compile_worker<I: IntoIterator<Item: AsRef<str>>>(order: I) -> ExitCode {
    let order: Vec<I::Item> = order.into_iter().collect();
    let order: Vec<&str> = order.iter().map(AsRef::as_ref).collect();
    let outcome = Order::parse(&order)
        .ok_or_else(|| (1, "was not told what to do".to_owned()))
        .and_then(|order| work(&order));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, why)) => {
            // Nothing can be done about a closed standard error.
            let _ = io::stderr().write_all(why.as_bytes());
            ExitCode::from(code)
        }
    }
}

fn work(order: &Order) -> Result<(), Failure> {
    let failed =
        |what: &'static str| move |error: io::Error| -> Failure { (1, format!("{what}: {error}")) };
    limit(order).map_err(failed("cannot limit itself"))?;
    tell_panics();
    // This says nothing of the component.
    rayon::ThreadPoolBuilder::new()
        .num_threads(order.threads)
        .build_global()
        .map_err(|error| failed("has no threads")(io::Error::other(error)))?;
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(order.size)
        .map_err(|error| (TOO_LARGE, error.to_string()))?;
    io::stdin()
        .take(order.size as u64)
        .read_to_end(&mut bytes)
        .map_err(failed("cannot read the component"))?;
    thread::Builder::new()
        .stack_size(SMALL_STACK)
        .spawn(end_with_parent)
        .map_err(failed("has no threads"))?;
    let code = precompile(order.flavor, &bytes).map_err(|error| {
        let no_memory = error.root_cause().to_string().starts_with(OUT_OF_MEMORY);
        let code = if no_memory { TOO_LARGE } else { REFUSED };
        (code, format!("{error:#}"))
    })?;
    let mut out = io::stdout().lock();
    out.write_all(&code)
        // It keeps what follows the last end of a line.
        .and_then(|()| out.flush())
        .map_err(failed("cannot write the machine code"))
}

fn precompile(flavor: Flavor, bytes: &[u8]) -> wasmtime::Result<Vec<u8>> {
    config::compiler(flavor)?.precompile_component(bytes)
}

/// Nothing follows the component: standard input ends when nobody waits any more.
fn end_with_parent() {
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    process::exit(1);
}

/// Tells panics in one line, as the rest of what becomes a workload's message.
fn tell_panics() {
    panic::set_hook(Box::new(|panicked| {
        let place = panicked.location().map(ToString::to_string);
        let _ = writeln!(
            io::stderr(),
            "{} (at {})",
            panicked.payload_as_str().unwrap_or("no message"),
            place.as_deref().unwrap_or("an unknown place")
        );
    }));
}

/// Bounds what this process uses.
fn limit(order: &Order) -> io::Result<()> {
    yield_to_others();
    let limit = |resource, value: u64, grace: u64| {
        // Somebody may have set a lower one, which cannot be raised.
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limits = Rlimit {
            current: Some(value.min(most)),
            maximum: Some(value.saturating_add(grace).min(most)),
        };
        setrlimit(resource, limits)
    };
    limit(Resource::Data, order.max_memory, 0)?;
    // The second limit's signal is one that others send too, and says nothing.
    limit(Resource::Cpu, order.max_time.as_secs(), 5)?;
    limit(Resource::Fsize, order.max_code, 0)?;
    // What is in memory is somebody's program.
    limit(Resource::Core, 0, 0)?;
    Ok(())
}
