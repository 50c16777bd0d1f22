//! Traffic by Service: which port a Service's workloads are served on, and the EndpointSlices that lead there. Pure.
//!
//! Every agent serves the workloads of a Service on one port of its own address, the same on all agents, whatever the Host
//! header says. A host is one endpoint, however many of the Service's workloads it has.

mod ports;
mod slices;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::Service;

pub(super) use ports::Ports;
pub(super) use slices::{Backend, Published, leave, publish};

use super::world::Id;

/// Who manages our EndpointSlices, as their label says.
pub(super) const MANAGED_BY: &str = "washlet-controller";

/// Why a Service that a workload names leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unpublished {
    pub reason: &'static str,
    pub message: String,
}

/// Whether endpoints can be published for a Service.
///
/// # Errors
/// [`Unpublished`], with the remedy.
pub(super) fn check(
    id: &Id,
    service: Option<&Service>,
    port: Option<u16>,
) -> Result<u16, Unpublished> {
    let refuse = |reason, message| Err(Unpublished { reason, message });
    let Some(service) = service else {
        return refuse(
            "ServiceNotFound",
            format!(
                "there is no Service {id}; create it without a selector, or remove spec.kubernetes.service"
            ),
        );
    };
    let spec = service.spec.as_ref();
    if spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName") {
        return refuse(
            "ServiceIsExternal",
            format!("Service {id} is of type ExternalName and has no endpoints; use another type"),
        );
    }
    if spec
        .and_then(|s| s.selector.as_ref())
        .is_some_and(|s| !s.is_empty())
    {
        return refuse(
            "ServiceHasSelector",
            format!(
                "Service {id} has a selector, so its endpoints are pods; remove spec.selector of the Service"
            ),
        );
    }
    port.ok_or_else(|| Unpublished {
        reason: "NoPortLeft",
        message: format!(
            "all ports from {} to {} are taken by other Services",
            Ports::RANGE.start(),
            Ports::RANGE.end()
        ),
    })
}
