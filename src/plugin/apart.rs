//! Parts of a composition that are granted something else than the rest of it.
//!
//! Components that are linked into one share what they import, and a host function cannot tell which of them calls. So a part
//! with grants of its own imports what leads to these under names of its own, and a plugin defines the same functions once
//! more under each of them, to work on the state of that part: [`StoreState::slot_of`](super::StoreState::slot_of).

use std::sync::Arc;

use wasmtime::component::{Linker, LinkerInstance};

use super::{ComponentFacts, StoreState, interface_ids};
use crate::{engine::OwnImport, wit::InterfaceId};

/// Most such parts of one composition: each has functions of its own, which are compiled into the host.
pub const MAX_APART: usize = 16;

/// A part of a composition that is granted something else than the rest.
#[derive(Debug, Clone)]
pub struct Apart {
    /// The component's name in the workload.
    pub component: Arc<str>,
    /// What it does not share.
    pub imports: Vec<OwnImport>,
}

impl Apart {
    /// The names under which the whole has this part's imports of what is offered.
    pub(super) fn names(&self, offered: &InterfaceId) -> impl Iterator<Item = String> {
        let own = self.imports.iter();
        own.filter(|own| own.import.served_by(offered))
            .map(|own| own.name().to_string())
    }
}

/// A component's linker, to which interfaces of its parts are added.
pub(super) struct Linking<'a> {
    pub linker: &'a mut Linker<StoreState>,
    pub component: &'a ComponentFacts,
}

impl Linking<'_> {
    /// Adds an interface, once for each part that has it for itself. `views` are what its functions work on, by the part's place.
    pub fn interface<V: Copy>(
        &mut self,
        name: &str,
        views: &[V; MAX_APART],
        add: impl Fn(&mut LinkerInstance<'_, StoreState>, V) -> wasmtime::Result<()>,
    ) -> wasmtime::Result<()> {
        for id in interface_ids(&[name]) {
            for (place, name) in self.component.own_names(&id) {
                let view = views.get(place).copied();
                let view = view.ok_or_else(|| {
                    wasmtime::Error::msg(format!("there is no place {place} for a part"))
                })?;
                add(&mut self.linker.instance(&name)?, view)?;
            }
        }
        Ok(())
    }
}

/// A function for each place that a part may have; its type parameter is the place, since Wasmtime's bindings take functions
/// that know nothing but the store.
macro_rules! at_each_place {
    ($function:ident) => {
        $crate::plugin::apart::at_each_place!(
            $function: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
        )
    };
    ($function:ident: $($place:literal)*) => {
        [$($function::<$place>),*]
    };
}
pub(super) use at_each_place;
