//! Wasmtime's configuration: its flavors, a pool where the machine has room for one, and what keeps a request cheap.

use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails,
};

use super::{Flavor, Pooling};

/// Instances at a time, for each flavor.
pub(super) const DEFAULT_INSTANCES: u32 = 1000;

/// Linear memory of one instance, in bytes.
pub(super) const DEFAULT_MEMORY: u64 = 256 << 20;

/// Dirty linear memory, in bytes, that a slot keeps for its next instance instead of returning it to the system: returning
/// costs a system call and a page fault for each page when it is used again, more than everything else that a request costs.
/// A guest in Rust dirties 50 to 200 KiB.
const KEEP_MEMORY: usize = 1 << 20;

/// The same for tables.
const KEEP_TABLE: usize = 64 << 10;

/// Elements of a table; CPython and StarlingMonkey have 10,000 to 20,000 functions in one.
pub(super) const TABLE_ELEMENTS: usize = 100_000;

/// A guest's own stack, in bytes.
const GUEST_STACK: usize = 512 << 10;

/// The stack that guest and host functions of one instance share, in bytes; only what is touched costs memory.
const FIBER_STACK: usize = 2 << 20;

/// Core instances, and tables, of one component: glue modules of adapters count too.
const PER_COMPONENT: u32 = 8;

/// An engine, and whether it has a pool.
pub(super) struct Configured {
    pub engine: wasmtime::Engine,
    pub pooled: bool,
}

/// The engine of one flavor.
pub(super) fn engine(
    flavor: Flavor,
    instances: u32,
    pooling: Pooling,
) -> wasmtime::Result<Configured> {
    if pooling == Pooling::Off {
        return on_demand(flavor);
    }
    match pooled(flavor, instances, Enabled::Yes)
        .or_else(|_| pooled(flavor, instances, Enabled::No))
    {
        Ok(engine) => Ok(Configured {
            engine,
            pooled: true,
        }),
        Err(error) if pooling == Pooling::On => Err(error),
        Err(error) => {
            tracing::warn!(
                instances,
                engine = flavor.as_str(),
                error = format!("{error:#}"),
                "no pool of instances, each one is mapped when it is made, which is slower; \
                 fewer instances or a higher limit of address space (RLIMIT_AS) would allow one"
            );
            on_demand(flavor)
        }
    }
}

/// An engine that compiles for those of this flavor, and runs nothing.
pub(super) fn compiler(flavor: Flavor) -> wasmtime::Result<wasmtime::Engine> {
    on_demand(flavor).map(|configured| configured.engine)
}

fn on_demand(flavor: Flavor) -> wasmtime::Result<Configured> {
    Ok(Configured {
        engine: wasmtime::Engine::new(&base(flavor))?,
        pooled: false,
    })
}

/// An engine with a pool that works: one instance has been made in it.
fn pooled(flavor: Flavor, instances: u32, scan: Enabled) -> wasmtime::Result<wasmtime::Engine> {
    let mut config = base(flavor);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances, scan)));
    let engine = wasmtime::Engine::new(&config)?;
    probe(&engine)?;
    Ok(engine)
}

/// What all flavors have in common, and what tells them apart.
fn base(flavor: Flavor) -> Config {
    let mut config = Config::new();
    config
        .concurrency_support(flavor.is_concurrent())
        .consume_fuel(flavor.is_metered())
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK)
        .async_stack_size(FIBER_STACK)
        // Otherwise WASMTIME_BACKTRACE_DETAILS in the host's environment decides.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config
}

fn pool(instances: u32, scan: Enabled) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::default();
    let several = instances.saturating_mul(PER_COMPONENT);
    pool.total_component_instances(instances)
        .total_core_instances(several)
        .total_tables(several)
        .table_elements(TABLE_ELEMENTS)
        .max_tables_per_module(PER_COMPONENT)
        .total_memories(instances.saturating_mul(2))
        .total_stacks(instances.saturating_mul(2))
        // The limiter says how much memory an instance may have; the slot allows all that 32 bits address.
        .max_memory_size(4 << 30)
        .pagemap_scan(scan);
    if matches!(scan, Enabled::Yes) {
        // Without the scan a kept slot is reset by copying all that is kept, which is slower than not keeping it.
        pool.linear_memory_keep_resident(KEEP_MEMORY)
            .table_keep_resident(KEEP_TABLE);
    }
    pool
}

/// Makes one instance: a pool may be mapped although using it will be refused.
fn probe(engine: &wasmtime::Engine) -> wasmtime::Result<()> {
    /// A core module with one page of memory.
    const MODULE: [u8; 13] = *b"\0asm\x01\0\0\0\x05\x03\x01\0\x01";
    let module = wasmtime::Module::new(engine, MODULE)?;
    wasmtime::Instance::new(wasmtime::Store::new(engine, ()), &module, &[])?;
    Ok(())
}
