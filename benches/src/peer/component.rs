//! The least program of hyper and Wasmtime that serves a component: what is left of a request without routes, limits, metrics and
//! drain.
//!
//! It has the levers that washlet has: an engine without concurrency support where the component needs none, a pool whose slots
//! stay resident, epochs and a limiter for each store. They are written down once more here, so that it shows if washlet loses one.

mod v2;
mod v3;

use std::{cell::RefCell, net::SocketAddr, path::Path, pin::Pin, rc::Rc, thread, time::Duration};

use anyhow::Result;
use hyper::{
    Request, Response,
    body::{Body as HttpBody, Incoming},
    service::service_fn,
};
use tokio::{sync::oneshot, task::spawn_local};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
    StoreLimits, StoreLimitsBuilder,
    component::{Component, Linker, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::Failure;

/// Time between two ticks of the epoch, at each of which a guest gives way.
const TICK: Duration = Duration::from_millis(5);

/// Instances at a time.
const INSTANCES: u32 = 1000;

/// Linear memory of one instance, in bytes.
const MEMORY: usize = 256 << 20;

/// What the component is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Wasi {
    /// WASI 0.2.
    P2,
    /// WASI 0.3.
    P3,
}

/// Whether instances are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Instances {
    /// A new one for each request.
    Fresh,
    /// Each is used again, for one request at a time.
    Kept,
}

/// A component's handler, ready to be instantiated.
trait Handler: Clone + Send + Sized + 'static {
    /// Whether its engine has to support concurrency.
    const CONCURRENT: bool;
    /// It, in one instance.
    type Proxy: 'static;
    type Body: HttpBody<Error: Into<Failure>> + 'static;
    /// Why there is no response.
    type Error: Into<Failure>;

    fn new(component: &Component) -> wasmtime::Result<Self>;

    async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Self::Proxy>;

    /// Returns when the instance may get another request.
    async fn call(
        proxy: &Self::Proxy,
        store: &mut Store<State>,
        request: Request<Incoming>,
        answer: oneshot::Sender<Answer<Self>>,
    ) -> wasmtime::Result<()>;
}

/// What the guest answers, or why it does not.
type Answer<H> = Result<Response<<H as Handler>::Body>, <H as Handler>::Error>;

/// The component on one thread, and its instances that wait for a request: the last one is the first to get one.
struct Guests<H: Handler> {
    handler: H,
    engine: Engine,
    instances: Instances,
    idle: RefCell<Vec<(Store<State>, H::Proxy)>>,
}

/// The data of a store.
struct State {
    limits: StoreLimits,
    table: ResourceTable,
    /// None until the guest asks for something of it, which hello never does.
    wasi: Option<WasiCtx>,
    http: WasiHttpCtx,
}

/// Answers each request as the component does.
pub fn serve(listen: SocketAddr, component: &Path, wasi: Wasi, instances: Instances) -> Result<()> {
    match wasi {
        Wasi::P2 => serve_with::<v2::Handler>(listen, component, instances),
        Wasi::P3 => serve_with::<v3::Handler>(listen, component, instances),
    }
}

fn serve_with<H: Handler>(
    listen: SocketAddr,
    component: &Path,
    instances: Instances,
) -> Result<()> {
    let engine = Engine::new(&config(H::CONCURRENT))?;
    let handler = H::new(&Component::from_file(&engine, component)?)?;
    let clock = engine.clone();
    thread::spawn(move || {
        loop {
            thread::sleep(TICK);
            clock.increment_epoch();
        }
    });
    super::serve(listen, move || {
        let guests = Rc::new(Guests {
            handler: handler.clone(),
            engine: engine.clone(),
            instances,
            idle: RefCell::default(),
        });
        move |stream| {
            let guests = guests.clone();
            let answer = service_fn(move |request| guests.clone().answer(request));
            super::spawn(stream, answer);
        }
    })
}

/// All that a component may import.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    Ok(linker)
}

fn config(concurrent: bool) -> Config {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(INSTANCES)
        .total_core_instances(INSTANCES * 8)
        .total_tables(INSTANCES * 8)
        .max_tables_per_module(8)
        .total_memories(INSTANCES * 2)
        .total_stacks(INSTANCES * 2);
    // Without the scan, slots that stay resident would be slower than those that do not.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(1 << 20)
            .table_keep_resident(64 << 10);
    }
    let mut config = Config::new();
    config
        .concurrency_support(concurrent)
        .epoch_interruption(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

impl<H: Handler> Guests<H> {
    /// Has the guest run in a task of its own. Measured: in its connection's it had half as many answers a second from fresh
    /// instances, and no more from kept ones. Each answer went out by itself then, and found its client asleep six times as often.
    async fn answer(
        self: Rc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<H::Body>, Failure> {
        let (answer, answered) = oneshot::channel();
        spawn_local(in_place(|| self.call(request, answer)));
        answered.await?.map_err(Into::into)
    }

    /// Has an instance answer, and keeps it if it is to be.
    async fn call(
        self: Rc<Self>,
        request: Request<Incoming>,
        answer: oneshot::Sender<Answer<H>>,
    ) -> wasmtime::Result<()> {
        let idle = self.idle.borrow_mut().pop();
        let (mut store, proxy) = match idle {
            Some(instance) => instance,
            None => self.instance().await?,
        };
        store.set_epoch_deadline(1);
        H::call(&proxy, &mut store, request, answer).await?;
        if self.instances == Instances::Kept {
            self.idle.borrow_mut().push((store, proxy));
        }
        Ok(())
    }

    async fn instance(&self) -> wasmtime::Result<(Store<State>, H::Proxy)> {
        let state = State {
            limits: StoreLimitsBuilder::new().memory_size(MEMORY).build(),
            table: ResourceTable::new(),
            wasi: None,
            http: WasiHttpCtx::new(),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let proxy = self.handler.instantiate(&mut store).await?;
        Ok((store, proxy))
    }
}

/// A future in a box, made where it stays; Tokio would copy all its room, mostly for later, some seven times.
fn in_place<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    let room = Box::new_uninit();
    Box::into_pin(Box::write(room, make()))
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: self.wasi.get_or_insert_with(|| WasiCtx::builder().build()),
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: Default::default(),
        }
    }
}
