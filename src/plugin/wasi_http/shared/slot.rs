//! A request's place in a shared instance, and what becomes of both when its client leaves.

use std::sync::Arc;

use super::{
    super::{call::Call, serve::lock},
    Driven, InFlight,
};

/// A request's place in an instance. Who drops it does not wait for the end any more.
pub(super) struct Slot<'a> {
    pub driven: Arc<Driven>,
    pub id: u64,
    pub call: &'a Call,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.driven.state);
        let Some(in_flight) = state.in_flight.get(&self.id) else {
            return;
        };
        // A guest that has answered learns by its body that nobody reads on, and its place is free then.
        if in_flight.begun && in_flight.call.outbox.has_answer() {
            return;
        }
        let left = state.in_flight.remove(&self.id);
        let is_last = state.in_flight.is_empty();
        drop(state);
        match left {
            Some(InFlight { begun: true, .. }) => {
                self.driven.retire();
                self.driven.changed.notify_one();
            }
            _ => self.call.handler().instances.slot_freed(is_last),
        }
    }
}
