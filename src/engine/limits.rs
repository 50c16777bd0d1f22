//! How much memory one instance may have.

use wasmtime::ResourceLimiter;

/// The limits of one store, and whether it ran into them.
///
/// The limit is on the sum of all linear memories of the store. A guest that asks for more is told so as WebAssembly does
/// (`memory.grow` returns -1); what it makes of that, usually a trap, is then known to be for lack of memory.
#[derive(Debug, Clone)]
pub struct InstanceLimits {
    max_memory: usize,
    used: usize,
    refused: bool,
}

impl InstanceLimits {
    /// Most elements of one table.
    const MAX_TABLE: usize = super::config::TABLE_ELEMENTS;

    /// At most `max_memory` bytes of linear memory in all.
    #[must_use]
    pub const fn new(max_memory: usize) -> Self {
        Self {
            max_memory,
            used: 0,
            refused: false,
        }
    }

    /// Whether memory was refused.
    #[must_use]
    pub const fn was_refused(&self) -> bool {
        self.refused
    }

    /// Linear memory in use, in bytes.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    /// The limit, in bytes.
    #[must_use]
    pub const fn max_memory(&self) -> usize {
        self.max_memory
    }
}

impl ResourceLimiter for InstanceLimits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Beyond the memory's own maximum the growth fails anyway, and that is not this limit's doing.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let after = self.used.saturating_sub(current).saturating_add(desired);
        let granted = after <= self.max_memory;
        if granted {
            self.used = after;
        } else {
            self.refused = true;
        }
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= maximum.unwrap_or(Self::MAX_TABLE).min(Self::MAX_TABLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_of_a_store_count() {
        let mut limits = InstanceLimits::new(10);
        assert!(limits.memory_growing(0, 4, None).unwrap());
        assert!(limits.memory_growing(0, 4, None).unwrap());
        assert!(limits.memory_growing(4, 6, None).unwrap());
        assert!(!limits.was_refused());
        assert!(!limits.memory_growing(4, 5, None).unwrap());
        assert!(limits.was_refused());
        assert_eq!(limits.used(), 10);
    }

    #[test]
    fn a_memory_that_is_full_by_itself_is_not_out_of_its_limit() {
        let mut limits = InstanceLimits::new(10);
        assert!(!limits.memory_growing(0, 4, Some(2)).unwrap());
        assert!(!limits.was_refused());
    }
}
