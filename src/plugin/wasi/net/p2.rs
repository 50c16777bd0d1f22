//! `wasi:sockets` 0.2: TCP, UDP, and looking up names.

mod name;
mod streams;
mod tcp;
mod udp;

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::{
    Network, SocketError, SocketResult,
    bindings::sockets::{
        self as bindings,
        network::{self, ErrorCode},
    },
};

use super::{OF_PARTS, Sockets, StoreState, View, apart};

/// See [`super::link`].
pub(super) fn link(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    bindings::tcp::add_to_linker::<_, Sockets>(linker, StoreState::sockets_view)?;
    bindings::tcp_create_socket::add_to_linker::<_, Sockets>(linker, StoreState::sockets_view)?;
    bindings::udp::add_to_linker::<_, Sockets>(linker, StoreState::sockets_view)?;
    bindings::udp_create_socket::add_to_linker::<_, Sockets>(linker, StoreState::sockets_view)?;
    bindings::ip_name_lookup::add_to_linker::<_, Sockets>(linker, StoreState::sockets_view)
}

/// The same for parts with grants of their own: a socket has those of the part that made it.
pub(super) fn link_apart(link: &mut apart::Linking<'_>) -> wasmtime::Result<()> {
    let tcp = bindings::tcp_create_socket::add_to_linker_instance::<_, Sockets>;
    link.interface("wasi:sockets/tcp-create-socket@0.2.12", &OF_PARTS, tcp)?;
    let udp = bindings::udp_create_socket::add_to_linker_instance::<_, Sockets>;
    link.interface("wasi:sockets/udp-create-socket@0.2.12", &OF_PARTS, udp)?;
    let lookup = bindings::ip_name_lookup::add_to_linker_instance::<_, Sockets>;
    link.interface("wasi:sockets/ip-name-lookup@0.2.12", &OF_PARTS, lookup)
}

// The interface itself stays with `wasmtime-wasi`; these are here because the others' errors are its.
impl network::Host for View<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        let error = self.table.get(&error)?;
        Ok(error.downcast_ref::<std::io::Error>().map(ErrorCode::from))
    }
}

impl network::HostNetwork for View<'_> {
    fn drop(&mut self, this: Resource<Network>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

/// A value that may not be zero.
fn positive<T: Default + PartialEq>(value: T) -> SocketResult<T> {
    if value == T::default() {
        return Err(ErrorCode::InvalidArgument.into());
    }
    Ok(value)
}
