//! The clock by which a guest that does not return is interrupted.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use wasmtime::EngineWeak;

/// Longest time for which a guest can keep its thread: at each tick it yields to the other requests of that thread.
///
/// Short, since a request of a neighbour waits up to this long behind each guest that spins; not shorter, since each tick
/// wakes a thread of an otherwise idle process, and a yield costs a spinning guest about a microsecond.
pub const TICK: Duration = Duration::from_millis(5);

/// Ticks since the process began, of all clocks that it has: a second host's makes time pass faster.
static TICKS: AtomicU64 = AtomicU64::new(0);

/// How often a clock has ticked. Cheap enough for each time that a guest is given a thread.
pub fn ticks() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// The engines that the clock ticks for.
pub(super) struct Ticker(Arc<Mutex<Vec<EngineWeak>>>);

impl Ticker {
    /// Ticks for one more engine; one of the earlier ones has to live still.
    pub fn add(&self, engine: &wasmtime::Engine) {
        lock(&self.0).push(engine.weak());
    }
}

/// Starts the thread that advances the epoch of `engines`, and of those that are added, until all of them are gone.
pub(super) fn start(engines: &[&wasmtime::Engine]) -> io::Result<Ticker> {
    let engines: Vec<EngineWeak> = engines.iter().map(|engine| engine.weak()).collect();
    let engines = Arc::new(Mutex::new(engines));
    let ticker = Ticker(engines.clone());
    thread::Builder::new()
        .name("washlet-tick".to_owned())
        .spawn(move || {
            loop {
                thread::sleep(TICK);
                // First, so that whoever is interrupted finds that time has passed.
                TICKS.fetch_add(1, Ordering::Relaxed);
                let mut alive = false;
                for engine in lock(&engines).iter().filter_map(EngineWeak::upgrade) {
                    engine.increment_epoch();
                    alive = true;
                }
                if !alive {
                    break;
                }
            }
        })?;
    Ok(ticker)
}

fn lock(engines: &Mutex<Vec<EngineWeak>>) -> MutexGuard<'_, Vec<EngineWeak>> {
    // A list that is only pushed to is whole whatever panicked.
    engines.lock().unwrap_or_else(PoisonError::into_inner)
}
