//! What a request costs, in a number that no machine's noise can change: allocations of the host. They were counted when the
//! requests a second in benches/README.md were measured; more of them mean that somebody made every request dearer.
//!
//! A binary of its own, since it counts what the whole process allocates.

#![cfg(feature = "wasi-http")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that looks where nothing is should fail"
)]

mod client;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use client::{Client, Way};
use wash_runtime::{
    engine::TICK,
    host::{HostApi, HostBuilder},
    plugin::wasi_http::HttpServer,
    spec::Source,
    types::{Component, Reuse, WitInterface, Workload, WorkloadStartRequest},
};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The client's own do not count.
    static IS_CLIENT: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

fn count() {
    if !IS_CLIENT.get() {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

#[expect(
    unsafe_code,
    reason = "the trait is unsafe; all is passed on to the system's allocator as it is"
)]
// SAFETY: every call is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that are asked for here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HELLO: &[u8] = include_bytes!("../../examples/hello/hello.wasm");
const HELLO_P3: &[u8] = include_bytes!("../../e2e/guests/wasm/hello-p3.wasm");
const ECHO: &[u8] = include_bytes!("../../e2e/guests/wasm/echo.wasm");
const ECHO_P3: &[u8] = include_bytes!("../../e2e/guests/wasm/echo-p3.wasm");

/// Requests that are counted together when one follows on the other, and how many such groups there are.
const DENSE: (u64, u64) = (10, 20);

/// The same for requests with a pause after each.
const SPARSE: (u64, u64) = (1, 40);

/// Allocations of one request over a kept connection, rounded up: when one follows on the other, and when a pause does.
async fn cost(bytes: &'static [u8], reuse: Option<Reuse>, way: Way) -> (u64, u64) {
    let http = Arc::new(HttpServer::new(([127, 0, 0, 1], 0).into()).workers(NonZeroUsize::MIN));
    let host = HostBuilder::new()
        .with_plugin(http.clone())
        .and_then(HostBuilder::build)
        .expect("a host");
    let host = host.start().await.expect("it starts");
    let workload = Workload {
        namespace: "test".into(),
        name: "hello".into(),
        components: vec![Component {
            name: "app".into(),
            source: Source::Bytes(bytes.into()),
            reuse,
            ..Component::default()
        }],
        host_interfaces: vec![WitInterface {
            namespace: "wasi".into(),
            package: "http".into(),
            interfaces: vec!["incoming-handler".into()],
            ..WitInterface::default()
        }],
        ..Workload::default()
    };
    host.workload_start(WorkloadStartRequest { workload })
        .await
        .expect("it starts");
    let address = http.addr().expect("a bound address");
    let counted = tokio::task::spawn_blocking(move || requests(address, way));
    counted.await.expect("no panic")
}

/// Sends requests one after the other and counts what others allocate meanwhile.
fn requests(address: SocketAddr, way: Way) -> (u64, u64) {
    IS_CLIENT.set(true);
    let mut client = Client::new(address, way);
    for _ in 0..50 {
        client.ask();
    }
    let mut counted = |(size, groups): (u64, u64), pause: Duration| {
        let counts = (0..groups).map(|_| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for _ in 0..size {
                client.ask();
                thread::sleep(pause);
            }
            ALLOCATIONS.load(Ordering::Relaxed) - before
        });
        usual(counts.collect()).div_ceil(size)
    };
    let dense = counted(DENSE, Duration::ZERO);
    // The engine's clock ticks in between.
    (dense, counted(SPARSE, 2 * TICK))
}

/// What a quarter of the counts is below. On a machine that is busy otherwise, a guest may well take so long that it is moved to
/// the slow lane, which allocates; it never allocates less.
fn usual(mut counts: Vec<u64>) -> u64 {
    counts.sort_unstable();
    *counts.get(counts.len() / 4).expect("some groups")
}

/// One test, as whatever runs beside it would be counted.
#[tokio::test]
async fn a_request_allocates_no_more_than_it_did() {
    let kept = Some(Reuse {
        pool_size: NonZeroU32::MIN,
        max_invocations: None,
        max_concurrency: NonZeroU32::MIN,
        min_instances: 0,
        idle: None,
    });
    let cases = [
        ("WASI 0.2, fresh instance", HELLO, None, Way::Http1, 88),
        ("WASI 0.2, kept instance", HELLO, kept, Way::Http1, 43),
        ("WASI 0.3, fresh instance", HELLO_P3, None, Way::Http1, 134),
        ("WASI 0.3, kept instance", HELLO_P3, kept, Way::Http1, 77),
        ("WASI 0.2, kept, HTTP/2", HELLO, kept, Way::Http2, 45),
        ("WASI 0.3, kept, HTTP/2", HELLO_P3, kept, Way::Http2, 78),
        ("WASI 0.2, kept, 16 KiB", ECHO, kept, Way::Echo, 103),
        ("WASI 0.3, kept, 16 KiB", ECHO_P3, kept, Way::Echo, 144),
    ];
    for (name, guest, reuse, way, limit) in cases {
        let (cost, sparse) = cost(guest, reuse, way).await;
        println!("{name}: {cost} allocations, {sparse} after a pause");
        assert!(cost > 5, "{name}: nothing is counted");
        assert!(
            cost <= limit,
            "{name}: {cost} allocations, it was to be {limit} at most"
        );
        // How a body is read varies a little.
        let spare = if way == Way::Echo { 3 } else { 1 };
        // A kept instance is interrupted when it is called after a tick. That is no reason to move it elsewhere.
        assert!(
            sparse <= cost + spare,
            "{name}: {sparse} allocations after a pause, {cost} without"
        );
    }
}
