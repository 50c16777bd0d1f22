//! `wasi:logging`: what a component logs becomes log events of the host, with the workload and the component in them.
//!
//! Components are built against `0.1.0-draft` or, older ones, against a package without a version; both are the same.

mod bindings;
mod host;

use std::sync::Arc;

use futures::future::BoxFuture;
use wasmtime::component::Linker;

use super::{BindRequest, Binding, ComponentFacts, HostPlugin, Slot, StoreState, interface_ids};
use crate::{
    fault::{Fault, Reason, Stage},
    wit::World,
};

const DRAFT: &str = "wasi:logging/logging@0.1.0-draft";
const UNVERSIONED: &str = "wasi:logging/logging";

/// Offers `wasi:logging` to components. Events have the target `washlet::guest`.
#[derive(Debug, Clone, Copy, Default)]
pub struct WasiLogging {}

/// Whose events they are.
struct Origin {
    namespace: String,
    workload: String,
    component: Arc<str>,
}

struct Bound {
    origins: Vec<Arc<Origin>>,
}

impl HostPlugin for WasiLogging {
    fn id(&self) -> &'static str {
        "wasi-logging"
    }

    fn world(&self) -> World {
        World {
            imports: interface_ids(&[DRAFT, UNVERSIONED]),
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
        if imports(DRAFT) {
            bindings::draft::add_to_linker::<_, host::View<'static>>(linker, host::view)?;
        }
        if imports(UNVERSIONED) {
            bindings::unversioned::add_to_linker::<_, host::View<'static>>(linker, host::view)?;
        }
        Ok(())
    }

    fn bind<'a>(
        &'a self,
        request: BindRequest<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn Binding>, Fault>> {
        let unknown = request
            .interfaces
            .iter()
            .find_map(|entry| entry.config.keys().next());
        let bound = match unknown {
            Some(key) => Err(Fault::new(
                Stage::Link,
                Reason::BindFailed,
                format!(
                    "wasi:logging has no option `{key}`; it has none at all: remove `config` from its entry"
                ),
            )),
            None => Ok(Bound {
                origins: request
                    .workload
                    .components
                    .iter()
                    .map(|component| {
                        Arc::new(Origin {
                            namespace: request.workload.namespace.clone(),
                            workload: request.workload.name.clone(),
                            component: component.name.clone(),
                        })
                    })
                    .collect(),
            }),
        };
        Box::pin(async move { bound.map(|bound| Box::new(bound) as Box<dyn Binding>) })
    }
}

impl Binding for Bound {
    fn slot(&self, component: &str) -> Option<Slot> {
        self.origins
            .iter()
            .find(|origin| *origin.component == *component)
            .map(|origin| origin.clone() as Slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Kit, config_entry};

    #[tokio::test]
    async fn options_are_refused() {
        let mut kit = Kit::new(Arc::new(WasiLogging::default()));
        kit.workload.interfaces = vec![config_entry(
            "wasi:logging",
            &["logging"],
            &[("level", "debug")],
        )];
        let fault = kit.bind().await.err().unwrap();
        assert_eq!(fault.reason, Reason::BindFailed);
        assert!(fault.message.contains("`level`"), "{fault}");
    }
}
