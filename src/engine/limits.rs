//! How much memory one instance may have, and all instances of a workload together; and how large a table may be.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use wasmtime::ResourceLimiter;

/// The linear memory of all instances of a workload together, whichever generation they are of.
#[derive(Debug, Default)]
pub struct SharedMemory {
    used: AtomicUsize,
}

impl SharedMemory {
    /// Linear memory in use, in bytes.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes memory, unless there would be more than `limit` in use.
    fn take(&self, bytes: usize, limit: usize) -> bool {
        // Only the sum matters; nothing else is told by it.
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|after| *after <= limit)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The limits of one store, and whether it ran into them.
///
/// The limit is on the sum of all linear memories of the store. A guest that asks for more is told so as WebAssembly does
/// (`memory.grow` returns -1); what it makes of that, usually a trap, is then known to be for lack of memory. Tables are the same,
/// each with a limit of its own.
#[derive(Debug)]
pub struct InstanceLimits {
    max_memory: usize,
    /// What the workload's instances share, and its limit in bytes.
    workload: Option<(Arc<SharedMemory>, usize)>,
    used: usize,
    refused: Option<Refusal>,
}

/// Which limit was in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// That of one instance, in bytes.
    Instance(usize),
    /// That of all instances of the workload together, in bytes.
    Workload(usize),
    /// That of one table, in elements.
    Table(usize),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(bytes) => write!(f, "an instance may have {bytes} bytes"),
            Self::Workload(bytes) => {
                write!(
                    f,
                    "all instances of the workload together may have {bytes} bytes"
                )
            }
            Self::Table(elements) => write!(f, "a table may have {elements} elements"),
        }
    }
}

impl InstanceLimits {
    /// Most elements of one table.
    const MAX_TABLE: usize = super::config::TABLE_ELEMENTS;

    /// At most `max_memory` bytes of linear memory in all.
    #[must_use]
    pub const fn new(max_memory: usize) -> Self {
        Self {
            max_memory,
            workload: None,
            used: 0,
            refused: None,
        }
    }

    /// The same, and at most `limit` bytes with all others that share the count.
    #[must_use]
    pub fn within(mut self, shared: Arc<SharedMemory>, limit: usize) -> Self {
        self.workload = Some((shared, limit));
        self
    }

    /// The same limits for another store, of which nothing is used.
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self {
            max_memory: self.max_memory,
            workload: self.workload.clone(),
            used: 0,
            refused: None,
        }
    }

    /// Begins with the next call: what an earlier one was refused is forgotten.
    pub const fn renew(&mut self) {
        self.refused = None;
    }

    /// Whether memory, or more of a table, was refused.
    #[must_use]
    pub const fn was_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// The limit by which memory, or more of a table, was last refused.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
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
        if after > self.max_memory {
            self.refused = Some(Refusal::Instance(self.max_memory));
            return Ok(false);
        }
        if let Some((shared, limit)) = &self.workload
            && !shared.take(after.saturating_sub(self.used), *limit)
        {
            self.refused = Some(Refusal::Workload(*limit));
            return Ok(false);
        }
        self.used = after;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let most = maximum.unwrap_or(Self::MAX_TABLE);
        if desired <= most.min(Self::MAX_TABLE) {
            return Ok(true);
        }
        // As with memories, a table's own maximum is not this limit's doing; but in a pool each has at most that of a slot.
        if most >= Self::MAX_TABLE {
            self.refused = Some(Refusal::Table(Self::MAX_TABLE));
        }
        Ok(false)
    }
}

impl Drop for InstanceLimits {
    fn drop(&mut self) {
        if let Some((shared, _)) = &self.workload {
            shared.give_back(self.used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_shares_its_memory() {
        let shared = Arc::new(SharedMemory::default());
        let template = InstanceLimits::new(10).within(shared.clone(), 12);
        let (mut one, mut two) = (template.fresh(), template.fresh());
        assert!(one.memory_growing(0, 8, None).unwrap());
        assert!(!two.memory_growing(0, 5, None).unwrap());
        assert_eq!(two.refusal(), Some(Refusal::Workload(12)));
        assert!(two.memory_growing(0, 4, None).unwrap());
        assert!(!one.memory_growing(8, 11, None).unwrap());
        assert_eq!(one.refusal(), Some(Refusal::Instance(10)));
        assert_eq!(shared.used(), 12);
        drop(one);
        assert_eq!(shared.used(), 4);
        assert!(two.memory_growing(4, 10, None).unwrap(), "room again");
        drop((two, template));
        assert_eq!(shared.used(), 0);
    }

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
    fn a_table_is_refused_by_its_own_limit() {
        let most = InstanceLimits::MAX_TABLE;
        let mut limits = InstanceLimits::new(10);
        assert!(limits.table_growing(0, most, None).unwrap());
        assert!(!limits.table_growing(1, 3, Some(2)).unwrap());
        assert!(!limits.was_refused(), "it is full by itself");
        for maximum in [None, Some(most), Some(2 * most)] {
            limits.renew();
            assert!(!limits.table_growing(most, most + 1, maximum).unwrap());
            assert_eq!(limits.refusal(), Some(Refusal::Table(most)), "{maximum:?}");
        }
        assert_eq!(limits.used(), 0);
    }

    #[test]
    fn a_memory_that_is_full_by_itself_is_not_out_of_its_limit() {
        let mut limits = InstanceLimits::new(10);
        assert!(!limits.memory_growing(0, 4, Some(2)).unwrap());
        assert!(!limits.was_refused());
    }
}
