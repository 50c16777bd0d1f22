//! What lives as long as an instance: WASI's own state, limits, and the plugins' slots.
//!
//! A store is made for each request, so everything that is the same for all instances of a component is decided once, in its
//! [`StoreTemplate`], and shared; what most components never touch is made when they do.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    num::NonZeroU64,
    sync::{Arc, OnceLock},
};

use wasmtime::{Store, UpdateDeadline, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

#[cfg(feature = "wasi-http")]
use super::wasi_http::HttpState;
use super::{
    Slot,
    wasi::{Grants, Instance, Network, Preopens, Role, View, WasiTemplate},
};
use crate::{
    engine::{Compiled, Engine, InstanceLimits, Room, SharedMemory},
    spec,
};

/// Resources that an instance may have at a time: streams, requests, files and so on. What is read and not taken is kept with
/// its stream, up to 64 KiB.
const MAX_RESOURCES: usize = 10_000;

/// The data of each store.
pub struct StoreState {
    limits: InstanceLimits,
    table: ResourceTable,
    /// None until the component calls something of WASI's base, which many HTTP handlers never do.
    wasi: Option<WasiCtx>,
    sockets: Instance,
    #[cfg(feature = "wasi-http")]
    http: HttpState,
    /// Of parts with grants of their own, by their place; each is made when that part first needs it.
    apart: BTreeMap<usize, PartState>,
    shared: Arc<Shared>,
}

/// What a part with grants of its own has in a store for itself.
struct PartState {
    /// None until the part calls something of WASI's base.
    wasi: Option<WasiCtx>,
    #[cfg(feature = "wasi-http")]
    http: HttpState,
}

/// The slots of one component, shared by all its instances.
#[derive(Clone, Default)]
pub struct Slots(Arc<[Slot]>);

/// Makes the stores of one component's instances; all that can be decided once is decided here.
pub struct StoreTemplate {
    engine: wasmtime::Engine,
    shared: Arc<Shared>,
    room: Arc<Room>,
    limits: InstanceLimits,
    #[cfg(feature = "wasi-http")]
    http: HttpState,
    /// As long as the component may be instantiated, compiling its bytes again gives this one.
    _compiled: Compiled,
}

/// What all instances of a component have in common.
struct Shared {
    /// For each call, if what the component executes is counted.
    fuel: Option<u64>,
    whole: Part,
    /// By their place.
    apart: Vec<Part>,
    /// Who is at none of these places.
    nobody: OnceLock<Part>,
}

/// What a component is granted, or a part of it that is granted something else.
pub struct Part {
    slots: Slots,
    wasi: WasiTemplate,
}

impl Part {
    /// The grants of a component of this workload. Of the slots, those that are [`Preopens`] and [`SharedMemory`] are what it has
    /// of its workload's volumes and memory. `network` is that of the workload's generation, and `role` what the component may
    /// do there.
    #[must_use]
    pub fn new(
        workload: &spec::Workload,
        component: &spec::Component,
        slots: Slots,
        network: &Network,
        role: Role,
    ) -> Self {
        #[cfg(feature = "wasi-http")]
        let count_denial = super::wasi_http::denial_counter(&slots);
        #[cfg(not(feature = "wasi-http"))]
        let count_denial = Box::new(|| ());
        let grants = Grants::new(network, role, workload, component, count_denial);
        let preopens = slots.get_shared::<Preopens>();
        Self {
            slots,
            wasi: WasiTemplate::new(workload, component, preopens, grants),
        }
    }

    fn state(&self) -> PartState {
        PartState {
            wasi: None,
            #[cfg(feature = "wasi-http")]
            http: HttpState::new(&self.slots),
        }
    }

    /// One that is granted nothing.
    fn nothing(&self) -> Self {
        Self {
            slots: Slots::default(),
            wasi: self.wasi.nothing(),
        }
    }
}

impl Shared {
    /// A part with grants of its own. Host functions are defined for those places only at which there is one; should there
    /// be none, it has nothing.
    fn part(&self, place: usize) -> &Part {
        let nobody = || self.nobody.get_or_init(|| self.whole.nothing());
        self.apart.get(place).unwrap_or_else(nobody)
    }
}

impl Slots {
    /// The slot of type `T`, if a plugin gave one. A component has few slots, so this compares a few type ids; it takes no
    /// lock and hashes nothing.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.iter().find_map(|slot| slot.downcast_ref())
    }

    /// The same, to keep.
    #[must_use]
    pub fn get_shared<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0
            .iter()
            .find_map(|slot| Arc::clone(slot).downcast().ok())
    }
}

impl FromIterator<Slot> for Slots {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        Self(slots.into_iter().collect())
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slots({})", self.0.len())
    }
}

impl StoreTemplate {
    /// Decides what the stores of one component of a workload have in common. `apart` are the parts of it that are granted
    /// something else than the `whole`, by their places.
    #[must_use]
    pub fn new(
        engine: &Engine,
        workload: &spec::Workload,
        component: &spec::Component,
        compiled: &Compiled,
        whole: Part,
        apart: Vec<Part>,
    ) -> Self {
        let max_memory = component.memory_limit.map_or(engine.max_memory(), |bytes| {
            usize::try_from(bytes).unwrap_or(usize::MAX)
        });
        let mut limits = InstanceLimits::new(max_memory);
        if let Some(shared) = whole.slots.get_shared::<SharedMemory>()
            && let Some(bytes) = workload.memory_limit
        {
            limits = limits.within(shared, usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        Self {
            engine: engine.wasmtime(compiled.flavor).clone(),
            room: engine.room(compiled.flavor).clone(),
            limits,
            #[cfg(feature = "wasi-http")]
            http: HttpState::new(&whole.slots),
            shared: Arc::new(Shared {
                fuel: compiled
                    .flavor
                    .is_metered()
                    .then(|| component.fuel.map_or(u64::MAX, NonZeroU64::get)),
                whole,
                apart,
                nobody: OnceLock::new(),
            }),
            _compiled: compiled.clone(),
        }
    }

    /// A store for one instance, to be used in a task of Tokio. Guests in it yield to the other tasks of their thread, and to
    /// its sockets, at each tick of the engine's clock that ends their time slice.
    #[must_use]
    pub fn store(&self) -> Store<StoreState> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        let state = StoreState {
            limits: self.limits.fresh(),
            table,
            wasi: None,
            sockets: Instance::default(),
            #[cfg(feature = "wasi-http")]
            http: self.http.clone(),
            apart: BTreeMap::new(),
            shared: self.shared.clone(),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(1);
        // Tokio's own way to yield: the thread looks at its sockets before the guest goes on. Wasmtime's would put the guest
        // back into the queue at once, and sockets would be looked at only after dozens of its ticks.
        store.epoch_deadline_callback(|_| {
            if !super::lane::slice_is_over() {
                return Ok(UpdateDeadline::Continue(1));
            }
            Ok(UpdateDeadline::YieldCustom(
                1,
                Box::pin(tokio::task::yield_now()),
            ))
        });
        StoreState::refuel(&mut store);
        store
    }

    /// The engine's room for instances, in which each of this component's takes a place.
    #[must_use]
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }
}

impl StoreState {
    /// The component's slot of type `T`, if a plugin gave it one; see [`Slots::get`].
    #[must_use]
    pub fn slot<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.shared.whole.slots.get()
    }

    /// The same of a part with grants of its own, by its place; see [`ComponentFacts::own_names`](super::ComponentFacts::own_names).
    #[must_use]
    pub fn slot_of<T: Any + Send + Sync>(&self, place: usize) -> Option<&T> {
        self.shared.part(place).slots.get()
    }

    /// The slots of type `T` of the component, and of its parts with grants of their own.
    pub(super) fn all_slots<T: Any + Send + Sync>(&self) -> impl Iterator<Item = &T> {
        let parts = std::iter::once(&self.shared.whole).chain(&self.shared.apart);
        parts.filter_map(|part| part.slots.get())
    }

    /// The instance's limits, and whether it ran into them.
    #[must_use]
    pub fn limits(&self) -> &InstanceLimits {
        &self.limits
    }

    /// Begins with the next call into an instance that is kept: with new fuel, and see [`InstanceLimits::renew`].
    pub fn renew(store: &mut Store<Self>) {
        store.data_mut().limits.renew();
        Self::refuel(store);
    }

    /// Gives the instance the fuel of one call, if it is counted.
    pub fn refuel(store: &mut Store<Self>) {
        if let Some(fuel) = store.data().shared.fuel {
            // It fails only where nobody counts.
            let _ = store.set_fuel(fuel);
        }
    }

    /// The fuel that was used since it was last given; none if nobody counts.
    #[must_use]
    pub fn fuel_used(store: &Store<Self>) -> Option<u64> {
        let given = store.data().shared.fuel?;
        Some(given.saturating_sub(store.get_fuel().ok()?))
    }

    /// What the host functions of `wasi:sockets` work on.
    pub(super) fn sockets_view(&mut self) -> View<'_> {
        View {
            grants: &self.shared.whole.wasi.grants,
            instance: &mut self.sockets,
            table: &mut self.table,
        }
    }

    /// The same of a part with grants of its own.
    pub(super) fn sockets_of<const PLACE: usize>(&mut self) -> View<'_> {
        View {
            grants: &self.shared.part(PLACE).wasi.grants,
            instance: &mut self.sockets,
            table: &mut self.table,
        }
    }

    /// WASI's own state of a part with grants of its own.
    pub(super) fn wasi_of<const PLACE: usize>(&mut self) -> WasiCtxView<'_> {
        let shared = self.shared.clone();
        let (part, table) = self.part_state(PLACE);
        let made = || shared.part(PLACE).wasi.context();
        WasiCtxView {
            ctx: part.wasi.get_or_insert_with(made),
            table,
        }
    }

    /// What calls out for a part with grants of its own.
    #[cfg(feature = "wasi-http")]
    pub(super) fn http_of<const PLACE: usize>(
        &mut self,
    ) -> wasmtime_wasi_http::WasiHttpCtxView<'_> {
        let (part, table) = self.part_state(PLACE);
        part.http.view(table)
    }

    fn part_state(&mut self, place: usize) -> (&mut PartState, &mut ResourceTable) {
        let shared = &self.shared;
        let state = self.apart.entry(place);
        let state = state.or_insert_with(|| shared.part(place).state());
        (state, &mut self.table)
    }

    /// The instance's resources.
    pub fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiView for StoreState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = &self.shared.whole.wasi;
        WasiCtxView {
            ctx: self.wasi.get_or_insert_with(|| wasi.context()),
            table: &mut self.table,
        }
    }
}

#[cfg(feature = "wasi-http")]
impl wasmtime_wasi_http::WasiHttpView for StoreState {
    fn http(&mut self) -> wasmtime_wasi_http::WasiHttpCtxView<'_> {
        self.http.view(&mut self.table)
    }
}
