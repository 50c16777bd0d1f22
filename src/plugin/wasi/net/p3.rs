//! `wasi:sockets` 0.3: TCP, UDP, and looking up names.

mod streams;
mod tcp;
mod udp;

use wasmtime::component::{Accessor, Linker};
use wasmtime_wasi::p3::{
    bindings::sockets::{
        ip_name_lookup::{self, ErrorCode},
        types::{self, IpAddress},
    },
    sockets::{SocketError, SocketResult},
};

use super::{
    OF_PARTS, Sockets, StoreState, View, apart,
    lookup::{self, Lookup, LookupError},
};

/// See [`super::link`].
pub(super) fn link(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    ip_name_lookup::add_to_linker::<_, Sockets>(linker, StoreState::sockets_view)?;
    types::add_to_linker::<_, Sockets>(linker, StoreState::sockets_view)
}

/// The same for parts with grants of their own.
pub(super) fn link_apart(link: &mut apart::Linking<'_>) -> wasmtime::Result<()> {
    let lookup = ip_name_lookup::add_to_linker_instance::<_, Sockets>;
    link.interface("wasi:sockets/ip-name-lookup@0.3.0", &OF_PARTS, lookup)?;
    let types = types::add_to_linker_instance::<_, Sockets>;
    link.interface("wasi:sockets/types@0.3.0", &OF_PARTS, types)
}

impl types::Host for View<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<types::ErrorCode> {
        error.downcast()
    }
}

impl From<LookupError> for ErrorCode {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Denied => Self::AccessDenied,
            LookupError::Invalid => Self::InvalidArgument,
            LookupError::Unknown => Self::NameUnresolvable,
            LookupError::Busy => Self::TemporaryResolverFailure,
        }
    }
}

impl ip_name_lookup::Host for View<'_> {}

impl ip_name_lookup::HostWithStore<StoreState> for Sockets {
    async fn resolve_addresses(
        store: &Accessor<StoreState, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<IpAddress>, ErrorCode>> {
        let judged = store.with(|mut store| {
            let view = store.get();
            let permits = view.grants.network.lookups.clone();
            lookup::judge(view.grants, &name).map(|lookup| (lookup, permits))
        });
        let found = match judged {
            Err(error) => Err(error),
            Ok((Lookup::Known(addresses), _)) => Ok(addresses),
            Ok((Lookup::Ask(asked), permits)) => {
                let found = lookup::resolve(permits, asked.clone()).await;
                if let Ok(addresses) = &found {
                    store.with(|mut store| {
                        let view = store.get();
                        view.instance.learn(view.grants, &asked, addresses);
                    });
                }
                found
            }
        };
        Ok(found
            .map(|addresses| addresses.into_iter().map(IpAddress::from).collect())
            .map_err(ErrorCode::from))
    }
}

/// A value that may not be zero.
fn positive<T: Default + PartialEq>(value: T) -> SocketResult<T> {
    if value == T::default() {
        return Err(types::ErrorCode::InvalidArgument.into());
    }
    Ok(value)
}
