//! Engines for components with fuel. Counting costs each function some of its speed and each pool its address space, so
//! nobody else shares these engines, and none is made before a component needs it.

use std::sync::OnceLock;

use super::{Flavor, Pooling, config, ticker::Ticker};

/// The engines that count, once they are made.
pub(super) struct Metered {
    instances: u32,
    pooling: Pooling,
    ticker: Ticker,
    plain: OnceLock<Made>,
    concurrent: OnceLock<Made>,
}

/// An engine, or why there is none.
type Made = Result<wasmtime::Engine, String>;

impl Metered {
    /// Makes none yet.
    pub const fn new(instances: u32, pooling: Pooling, ticker: Ticker) -> Self {
        Self {
            instances,
            pooling,
            ticker,
            plain: OnceLock::new(),
            concurrent: OnceLock::new(),
        }
    }

    /// The engine of a flavor that counts; the first time it is made, which maps a pool.
    ///
    /// # Errors
    /// The text says why it cannot be made.
    pub fn engine(&self, flavor: Flavor) -> Result<&wasmtime::Engine, &str> {
        let cell = if flavor.is_concurrent() {
            &self.concurrent
        } else {
            &self.plain
        };
        let make = || {
            let made = config::engine(flavor, self.instances, self.pooling)
                .map_err(|error| format!("{error:#}"))?;
            self.ticker.add(&made.engine);
            Ok(made.engine)
        };
        cell.get_or_init(make).as_ref().map_err(String::as_str)
    }
}
