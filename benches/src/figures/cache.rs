//! P10: loading machine code from the cache, beside making it and beside reading it.

use std::{fmt::Write as _, fs, io, path::Path, time::Instant};

use anyhow::Result;
use wash_runtime::{engine::Engine, source::Fetched};

use super::Bench;
use crate::figure::Figure;

/// Functions of the component; with these it has about 10 MB, nearly all of it code.
const FUNCTIONS: usize = 64_000;

/// Each round compiles with an empty cache, and loads what that has left with an engine that has never seen it.
pub fn load(bench: &Bench<'_>) -> Result<()> {
    let bytes = component()?;
    eprintln!("  a component of {:.1} MB", bytes.len() as f64 / 1e6);
    let fetched = Fetched::in_memory(bytes.into());
    let (mut loads, mut compiles, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for _ in 0..bench.options.rounds {
        let cache = tempfile::tempdir()?;
        compiles.push(timed(&runtime, cache.path(), &fetched)? * 1e3);
        loads.push(timed(&runtime, cache.path(), &fetched)? * 1e3);
        let begun = Instant::now();
        read_all(cache.path())?;
        reads.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Figure::ratio(
        "P10",
        "load from the cache ÷ compile, 10 MB",
        "ms",
        &loads,
        &compiles,
    )
    .at_most(1.0 / 200.0)
    .print();
    Figure::ratio(
        "P10",
        "load from the cache ÷ reading the same bytes",
        "ms",
        &loads,
        &reads,
    )
    .print();
    Ok(())
}

/// Reads all that is below a folder.
fn read_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            read_all(&entry.path())?;
        } else {
            std::hint::black_box(fs::read(entry.path())?);
        }
    }
    Ok(())
}

fn timed(runtime: &tokio::runtime::Runtime, cache: &Path, fetched: &Fetched) -> Result<f64> {
    let engine = Engine::builder()
        .max_instances(1)
        .cache_dir(cache)
        .build()?;
    let begun = Instant::now();
    let compiled = runtime.block_on(engine.compile(fetched))?;
    let seconds = begun.elapsed().as_secs_f64();
    drop(compiled);
    Ok(seconds)
}

/// A component of many functions that are all different.
fn component() -> Result<Vec<u8>> {
    let mut text = String::from("(component (core module (memory 1)\n");
    for index in 0..FUNCTIONS {
        let _ = writeln!(
            text,
            "(func (param i32 i32) (result i32) (local i32)\n\
             (local.set 2 (i32.mul (local.get 0) (i32.const {})))",
            index * 31 + 7
        );
        for step in 0..8 {
            let _ = writeln!(
                text,
                "(if (i32.lt_s (local.get 2) (local.get 1)) (then (local.set 2 (i32.add (local.get 2) \
                 (i32.load offset={} (i32.and (local.get 0) (i32.const 1023)))))))",
                (index + step * 13) % 4096
            );
        }
        text.push_str("(local.get 2))\n");
    }
    text.push_str("))");
    Ok(wat::parse_str(&text)?)
}
