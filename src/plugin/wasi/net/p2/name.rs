//! `wasi:sockets/ip-name-lookup` 0.2.

use std::{
    future::poll_fn,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    vec,
};

use futures::future::BoxFuture;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{
    DynPollable, Network, Pollable, SocketError, SocketResult,
    bindings::sockets::{
        ip_name_lookup::{Host, HostResolveAddressStream, ResolveAddressStream},
        network::{ErrorCode, IpAddress},
    },
    subscribe,
};

use super::super::{
    View,
    lookup::{self, Lookup, LookupError},
};

/// A lookup in hand, or what it found.
struct Found {
    name: Arc<str>,
    state: State,
}

enum State {
    Asking(BoxFuture<'static, Result<Vec<IpAddr>, LookupError>>),
    /// All of them, until the instance has learned them.
    Found(Vec<IpAddr>),
    Rest(vec::IntoIter<IpAddr>),
    Failed(LookupError),
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

/// The same resource, as what it is in the table.
fn own(this: &Resource<ResolveAddressStream>) -> Resource<Found> {
    Resource::new_borrow(this.rep())
}

impl Host for View<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        self.table.get(&network)?;
        let judged = lookup::judge(self.grants, &name).map_err(ErrorCode::from)?;
        let name: Arc<str> = name.strip_suffix('.').unwrap_or(&name).into();
        let state = match judged {
            Lookup::Known(addresses) => State::Rest(addresses.into_iter()),
            Lookup::Ask(name) => {
                let permits = self.grants.network.lookups.clone();
                let task = tokio::spawn(lookup::resolve(permits, name));
                State::Asking(Box::pin(async {
                    task.await.unwrap_or(Err(LookupError::Busy))
                }))
            }
        };
        let found = self.table.push(Found { name, state })?;
        Ok(Resource::new_own(found.rep()))
    }
}

impl HostResolveAddressStream for View<'_> {
    fn resolve_next_address(
        &mut self,
        this: Resource<ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        let found = self.table.get_mut(&own(&this))?;
        if found
            .poll_ready(&mut Context::from_waker(Waker::noop()))
            .is_pending()
        {
            return Err(ErrorCode::WouldBlock.into());
        }
        if let State::Found(addresses) = &mut found.state {
            let addresses = std::mem::take(addresses);
            self.instance.learn(self.grants, &found.name, &addresses);
            found.state = State::Rest(addresses.into_iter());
        }
        match &mut found.state {
            State::Rest(rest) => Ok(rest.next().map(IpAddress::from)),
            State::Failed(error) => Err(SocketError::from(ErrorCode::from(*error))),
            State::Asking(_) | State::Found(_) => Err(ErrorCode::WouldBlock.into()),
        }
    }

    fn subscribe(
        &mut self,
        this: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, own(&this))
    }

    fn drop(&mut self, this: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Found>::new_own(this.rep()))?;
        Ok(())
    }
}

impl Found {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let State::Asking(asking) = &mut self.state {
            self.state = match ready!(asking.as_mut().poll(context)) {
                Ok(addresses) => State::Found(addresses),
                Err(error) => State::Failed(error),
            };
        }
        Poll::Ready(())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Found {
    async fn ready(&mut self) {
        poll_fn(|context| self.poll_ready(context)).await;
    }
}
