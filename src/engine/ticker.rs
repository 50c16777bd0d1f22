//! The clock by which a guest that does not return is interrupted.

use std::{io, thread, time::Duration};

use wasmtime::EngineWeak;

/// Longest time for which a guest can keep its thread: at each tick it yields to the other requests of that thread.
///
/// Short, since a request of a neighbour waits up to this long behind each guest that spins; not shorter, since each tick
/// wakes a thread of an otherwise idle process, and a yield costs a spinning guest about a microsecond.
pub const TICK: Duration = Duration::from_millis(5);

/// Starts the thread that advances the epoch of `engines` until all of them are gone.
pub(super) fn start(engines: &[&wasmtime::Engine]) -> io::Result<()> {
    let engines: Vec<EngineWeak> = engines.iter().map(|engine| engine.weak()).collect();
    thread::Builder::new()
        .name("washlet-tick".to_owned())
        .spawn(move || {
            loop {
                thread::sleep(TICK);
                let mut alive = false;
                for engine in engines.iter().filter_map(EngineWeak::upgrade) {
                    engine.increment_epoch();
                    alive = true;
                }
                if !alive {
                    break;
                }
            }
        })?;
    Ok(())
}
