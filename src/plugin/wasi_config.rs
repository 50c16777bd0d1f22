//! `wasi:config`: a component reads its configuration, one key at a time or all of it.
//!
//! Two versions are in use, `store@0.2.0-rc.1` and the older `runtime@0.2.0-draft`; both see the same values: those of the
//! workload's `wasi:config` entries (the later entry wins), under those of the component. Any key is a value, so there is
//! nothing here that a user could misspell.

mod bindings;
mod host;

use std::{collections::BTreeMap, sync::Arc};

use futures::future::BoxFuture;
use wasmtime::component::Linker;

use super::{
    BindRequest, Binding, ComponentFacts, HostPlugin, Slot, StoreState, apart, interface_ids,
};
use crate::{fault::Fault, wit::World};

const STORE: &str = "wasi:config/store@0.2.0-rc.1";
const RUNTIME: &str = "wasi:config/runtime@0.2.0-draft";

/// Offers `wasi:config` to components.
#[derive(Debug, Clone, Copy, Default)]
pub struct WasiConfig {}

/// What one component reads; never changed, since a changed value is a new generation of the workload.
struct Values(BTreeMap<String, String>);

struct Bound {
    values: Vec<(Arc<str>, Arc<Values>)>,
}

impl HostPlugin for WasiConfig {
    fn id(&self) -> &'static str {
        "wasi-config"
    }

    fn world(&self) -> World {
        World {
            imports: interface_ids(&[STORE, RUNTIME]),
            exports: Vec::new(),
        }
    }

    fn link(
        &self,
        linker: &mut Linker<StoreState>,
        component: &ComponentFacts,
    ) -> wasmtime::Result<()> {
        let imports = |name: &str| {
            interface_ids(&[name])
                .iter()
                .any(|id| component.imports(id))
        };
        if imports(STORE) {
            bindings::store::add_to_linker::<_, host::View<'static>>(linker, host::view)?;
        }
        if imports(RUNTIME) {
            bindings::runtime::add_to_linker::<_, host::View<'static>>(linker, host::view)?;
        }
        let mut link = apart::Linking { linker, component };
        let store = bindings::store::add_to_linker_instance::<_, host::View<'static>>;
        link.interface(STORE, &host::OF_PARTS, store)?;
        let runtime = bindings::runtime::add_to_linker_instance::<_, host::View<'static>>;
        link.interface(RUNTIME, &host::OF_PARTS, runtime)
    }

    fn bind<'a>(
        &'a self,
        request: BindRequest<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn Binding>, Fault>> {
        let mut shared = BTreeMap::new();
        for entry in &request.interfaces {
            shared.extend(entry.config.clone());
        }
        let of_component = |component: &crate::spec::Component| {
            let mut values = shared.clone();
            values.extend(component.config.clone());
            (component.name.clone(), Arc::new(Values(values)))
        };
        let values = request
            .workload
            .components
            .iter()
            .map(of_component)
            .collect();
        Box::pin(async move { Ok(Box::new(Bound { values }) as Box<dyn Binding>) })
    }
}

impl Binding for Bound {
    fn slot(&self, component: &str) -> Option<Slot> {
        self.values
            .iter()
            .find(|(name, _)| **name == *component)
            .map(|(_, values)| values.clone() as Slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Kit, config_entry};

    #[tokio::test]
    async fn a_components_values_are_over_the_interfaces() {
        let mut kit = Kit::new(Arc::new(WasiConfig::default()));
        kit.workload.interfaces = vec![
            config_entry(
                "wasi:config",
                &["store"],
                &[("a", "1"), ("b", "1"), ("c", "1")],
            ),
            config_entry("wasi:config", &["store"], &[("b", "2"), ("c", "2")]),
        ];
        kit.workload.components[0].config = [("c".to_owned(), "3".to_owned())].into();
        let binding = kit.bind().await.unwrap();
        let slot = binding.slot("main").unwrap();
        let values = &slot.downcast_ref::<Values>().unwrap().0;
        let got: Vec<_> = values
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(got, [("a", "1"), ("b", "2"), ("c", "3")]);
        assert!(binding.slot("other").is_none());
    }
}
