//! The host functions. All versions read the same slot.

use wasmtime::component::HasData;

use super::{
    Values,
    bindings::{runtime, store},
};
use crate::plugin::{MAX_APART, StoreState, apart::at_each_place};

/// The values of the calling component; none if the workload was bound without this plugin, which then has nothing to say.
pub(super) struct View<'a>(Option<&'a Values>);

/// Finds them.
pub(super) fn view(state: &mut StoreState) -> View<'_> {
    View(state.slot())
}

/// Finds those of parts with grants of their own.
pub(super) const OF_PARTS: [for<'a> fn(&'a mut StoreState) -> View<'a>; MAX_APART] =
    at_each_place!(of_part);

fn of_part<const PLACE: usize>(state: &mut StoreState) -> View<'_> {
    View(state.slot_of(PLACE))
}

impl View<'_> {
    fn value(&self, key: &str) -> Option<String> {
        self.0.and_then(|values| values.0.get(key).cloned())
    }

    fn all(&self) -> Vec<(String, String)> {
        self.0
            .map(|values| values.0.clone().into_iter().collect())
            .unwrap_or_default()
    }
}

impl HasData for View<'static> {
    type Data<'a> = View<'a>;
}

impl store::Host for View<'_> {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        Ok(Ok(self.value(&key)))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        Ok(Ok(self.all()))
    }
}

impl runtime::Host for View<'_> {
    fn get(
        &mut self,
        key: String,
    ) -> wasmtime::Result<Result<Option<String>, runtime::ConfigError>> {
        Ok(Ok(self.value(&key)))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, runtime::ConfigError>> {
        Ok(Ok(self.all()))
    }
}
