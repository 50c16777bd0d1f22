use std::{fs, path::Path, time::Duration};

use super::*;
use crate::{
    content::{Content, Fetched},
    fault::{Class, Reason},
    spec::Source,
};

/// A component with a little code in it.
const WAT: &str = r#"(component
    (core module $m (func (export "f") (result i32) i32.const 7))
    (core instance $i (instantiate $m))
    (func (export "f") (result s32) (canon lift (core func $i "f"))))"#;

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn engine(cache: Option<&Path>) -> Engine {
    let builder = Engine::builder().max_instances(4);
    match cache {
        Some(path) => builder.cache_dir(path.join("cache")).build().unwrap(),
        None => builder.build().unwrap(),
    }
}

fn fetched(bytes: impl AsRef<[u8]>) -> Fetched {
    Fetched::in_memory(bytes::Bytes::copy_from_slice(bytes.as_ref()))
}

/// The same bytes, but they cannot be read: only the cache can have them.
fn only_cached(bytes: &[u8]) -> Fetched {
    Fetched {
        content: Content::File("/nonexistent".into()),
        ..fetched(bytes)
    }
}

fn cached_files(parent: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(parent.join("cache"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

async fn call(engine: &Engine, compiled: &Compiled) -> i32 {
    let raw = engine.wasmtime(compiled.flavor);
    let mut store = wasmtime::Store::new(raw, ());
    store.set_epoch_deadline(1000);
    let instance = engine
        .linker::<()>(compiled.flavor)
        .instantiate_async(&mut store, &compiled.component)
        .await
        .unwrap();
    let function = instance
        .get_typed_func::<(), (i32,)>(&mut store, "f")
        .unwrap();
    function.call_async(&mut store, ()).await.unwrap().0
}

#[tokio::test]
async fn what_was_compiled_once_is_loaded_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = wat(WAT);
    {
        let engine = engine(Some(directory.path()));
        let error = engine.compile(&only_cached(&bytes)).await.unwrap_err();
        assert!(matches!(error, CompileError::Unreadable { .. }));
        assert_eq!(error.class(), Class::Retry);
        engine.compile(&fetched(&bytes)).await.unwrap();
        assert_eq!(cached_files(directory.path()).len(), 1);
    }
    let engine = engine(Some(directory.path()));
    let compiled = engine.compile(&only_cached(&bytes)).await.unwrap();
    assert_eq!(compiled.flavor, Flavor::Plain);
    assert_eq!(call(&engine, &compiled).await, 7);
}

#[tokio::test]
async fn useless_files_are_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = wat(WAT);
    engine(Some(directory.path()))
        .compile(&fetched(&bytes))
        .await
        .unwrap();
    let path = cached_files(directory.path()).remove(0);
    let good = fs::read(&path).unwrap();

    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let mut foreign = b"machine code of another kind".to_vec();
    let sum = crc32fast::hash(&foreign);
    foreign.extend(b"washlet-crc1");
    foreign.extend(sum.to_le_bytes());
    for bad in [
        flipped,
        good[..good.len() / 2].to_vec(),
        Vec::new(),
        foreign,
    ] {
        fs::write(&path, &bad).unwrap();
        let engine = engine(Some(directory.path()));
        assert!(engine.compile(&only_cached(&bytes)).await.is_err());
        let compiled = engine.compile(&fetched(&bytes)).await.unwrap();
        assert_eq!(call(&engine, &compiled).await, 7);
        assert_eq!(fs::read(&path).unwrap().len(), good.len());
        assert_eq!(
            cached_files(directory.path()).len(),
            1,
            "no temporary file is left"
        );
    }
}

#[tokio::test]
async fn code_beyond_the_limit_leaves_the_disk_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let builder = Engine::builder().max_instances(4);
    let builder = builder.cache_dir(directory.path().join("cache"));
    let engine = builder.cache_space(1).build().unwrap();
    let mut compiled = Vec::new();
    for number in [7, 8] {
        let bytes = wat(&WAT.replace("const 7", &format!("const {number}")));
        compiled.push(engine.compile(&fetched(&bytes)).await.unwrap());
        let left = cached_files(directory.path());
        assert_eq!(left.len(), 1, "the new one only");
    }
    for (compiled, says) in compiled.iter().zip([7, 8]) {
        assert_eq!(call(&engine, compiled).await, says);
    }
}

#[tokio::test]
async fn code_that_is_loaded_has_been_used() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = wat(WAT);
    let first = engine(Some(directory.path()));
    first.compile(&fetched(&bytes)).await.unwrap();
    let path = cached_files(directory.path()).remove(0);
    let used = || fs::metadata(&path).unwrap().modified().unwrap();
    let before = used() - Duration::from_secs(3600);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(before).unwrap();
    let engine = engine(Some(directory.path()));
    engine.compile(&only_cached(&bytes)).await.unwrap();
    assert!(used() > before);
}

#[tokio::test]
async fn what_is_no_component_is_told_apart() {
    let engine = engine(None);
    let module = wat("(module)");
    let cases: [(&[u8], Reason, &str); 5] = [
        (b"", Reason::NotAComponent, "is empty"),
        (
            b"<!doctype html>",
            Reason::NotAComponent,
            "`<!doctype html>`",
        ),
        (&module, Reason::NotAComponent, "wasm-tools component new"),
        (
            b"\0asm\x0d\0\x01\0\xff\xff",
            Reason::CompileFailed,
            "Wasmtime",
        ),
        (&wat(WAT)[..30], Reason::CompileFailed, "Wasmtime"),
    ];
    for (bytes, reason, text) in cases {
        let error = engine.compile(&fetched(bytes)).await.unwrap_err();
        let fault = error.fault(&"main".into(), &Source::File("/x/app.wasm".into()));
        assert_eq!((fault.reason, fault.class), (reason, Class::Terminal));
        assert!(fault.message.contains(text), "{fault}");
        assert!(
            fault
                .message
                .contains("component \"main\" (file /x/app.wasm)"),
            "{fault}"
        );
    }
}

#[tokio::test]
async fn names_are_the_components_world() {
    let bytes = wat(r#"(component
        (import "wasi:io/poll@0.2.3" (instance))
        (import "bare" (func))
        (import "acme:widgets/api" (instance $api))
        (export "acme:widgets/other@1.2.3" (instance $api)))"#);
    let compiled = engine(None).compile(&fetched(&bytes)).await.unwrap();
    let text =
        |ids: &[crate::wit::InterfaceId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        text(&compiled.world.imports),
        ["wasi:io/poll@0.2.3", "acme:widgets/api"]
    );
    assert_eq!(text(&compiled.world.exports), ["acme:widgets/other@1.2.3"]);
    assert_eq!(compiled.bare_names, ["bare"]);
}

#[tokio::test]
async fn the_same_bytes_are_one_component_as_long_as_it_lives() {
    let engine = engine(None);
    let bytes = wat(WAT);
    let fetched = fetched(&bytes);
    let (a, b) = tokio::join!(engine.compile(&fetched), engine.compile(&fetched));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(Arc::ptr_eq(&a.0, &b.0));
    drop(b);
    assert!(engine.compile(&only_cached(&bytes)).await.is_ok());
    drop(a);
    assert!(engine.compile(&only_cached(&bytes)).await.is_err());
}

#[tokio::test]
async fn asynchronous_components_get_the_other_engine() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = wat(r#"(component (import "f" (func async)))"#);
    let compiled = engine(Some(directory.path()))
        .compile(&fetched(&bytes))
        .await
        .unwrap();
    assert_eq!(compiled.flavor, Flavor::Concurrent);
    let again = engine(Some(directory.path()))
        .compile(&only_cached(&bytes))
        .await
        .unwrap();
    assert_eq!(again.flavor, Flavor::Concurrent);
}

#[tokio::test]
async fn without_a_pool_components_run_too() {
    let engine = Engine::builder().pooling(Pooling::Off).build().unwrap();
    assert!(!engine.is_pooled());
    let compiled = engine.compile(&fetched(wat(WAT))).await.unwrap();
    assert_eq!(call(&engine, &compiled).await, 7);
}

#[tokio::test]
async fn what_is_counted_is_compiled_and_cached_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let engine = || {
        Engine::builder()
            .cache_dir(directory.path())
            .build()
            .unwrap()
    };
    let bytes = fetched(wat(WAT));
    let first = engine();
    let (plain, metered) = (
        first.compile(&bytes).await.unwrap(),
        first.compile_metered(&bytes).await.unwrap(),
    );
    assert_eq!(
        (plain.flavor, metered.flavor),
        (Flavor::Plain, Flavor::PlainMetered)
    );
    assert_eq!(plain.digest, metered.digest);
    let names = || {
        let files = std::fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    };
    let written = names();
    assert_eq!(written.len(), 2, "{written:?}");
    assert!(written.iter().any(|name| name.contains(".plain-metered.")));
    // Both are found again.
    let second = engine();
    assert_eq!(second.compile(&bytes).await.unwrap().flavor, Flavor::Plain);
    let again = second.compile_metered(&bytes).await.unwrap();
    assert_eq!(again.flavor, Flavor::PlainMetered);
    assert_eq!(names(), written);
}

/// A compiler that is a script of the shell, and what became of it.
async fn compiled_by(script: &str) -> Result<Compiled, CompileError> {
    let process = CompilerProcess::new("/bin/sh", ["-c", script]);
    let engine = Engine::builder()
        .max_instances(4)
        .compile_apart(process)
        .build()
        .unwrap();
    engine.compile(&fetched(wat(WAT))).await
}

#[tokio::test]
async fn a_compilers_process_that_fails_says_why() {
    let cases = [
        // What is wrong with the component is the same at each try.
        (
            "echo it is bad >&2; exit 3",
            Class::Terminal,
            "cannot compile it: it is bad",
        ),
        (
            "echo thread panicked at here >&2; exit 101",
            Class::Terminal,
            "panicked: thread panicked at here",
        ),
        ("kill -SEGV $$", Class::Terminal, "crashed (signal: 11"),
        (
            "echo unhandled out-of-memory error: out of memory >&2; exit 101",
            Class::Terminal,
            "more than 768 MiB",
        ),
        (
            "echo memory allocation of 7 bytes failed >&2; kill -ABRT $$",
            Class::Terminal,
            "more than 768 MiB",
        ),
        (
            "kill -XCPU $$",
            Class::Terminal,
            "more than 300 s of processor time",
        ),
        // What befell the process may not do so again.
        ("kill -KILL $$", Class::Retry, "signal: 9"),
        ("exit 1", Class::Retry, "exit status: 1"),
        ("echo no machine code", Class::Retry, "cannot be used"),
    ];
    for (script, class, text) in cases {
        let error = compiled_by(script).await.unwrap_err();
        let said = error.to_string();
        assert_eq!(
            (error.class(), error.reason()),
            (class, Reason::CompileFailed),
            "{script}: {said}"
        );
        assert!(said.contains(text), "{script}: {said}");
    }
    let process = CompilerProcess::new("/nonexistent", [""; 0]);
    let engine = Engine::builder().compile_apart(process).build().unwrap();
    let error = engine.compile(&fetched(wat(WAT))).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry);
    assert!(error.to_string().contains("cannot be started"), "{error}");
}

/// A compiler that talks without end, or does not listen, holds up nothing.
#[tokio::test]
async fn a_compilers_process_may_say_or_hear_too_much_or_too_little() {
    let error = compiled_by("yes >&2 & yes | head -c 3000000; kill $!; exit 3").await;
    assert!(matches!(error, Err(CompileError::Refused(why)) if why.len() <= 4096));
    let deaf = CompilerProcess::new("/bin/sh", ["-c", "exec <&-; sleep 0.1; exit 3"]);
    let engine = Engine::builder().compile_apart(deaf).build().unwrap();
    let mut bytes = wat(WAT);
    // A custom section that fills any pipe.
    bytes.extend([0, 0x80, 0x80, 0x40, 0]);
    bytes.resize(bytes.len() + (1 << 20) - 1, 0);
    let error = engine.compile(&fetched(bytes)).await.unwrap_err();
    assert!(matches!(error, CompileError::Refused(_)), "{error}");
}

#[tokio::test]
async fn there_may_be_no_limit_of_time() {
    let process = CompilerProcess::new("/bin/sh", ["-c", "echo it is bad >&2; exit 3"])
        .max_time(Duration::MAX)
        .max_memory(64 << 20);
    let engine = Engine::builder().compile_apart(process).build().unwrap();
    let error = engine.compile(&fetched(wat(WAT))).await.unwrap_err();
    assert!(matches!(error, CompileError::Refused(_)), "{error}");
}

#[tokio::test]
async fn what_took_too_much_is_not_tried_again() {
    let tries = tempfile::NamedTempFile::new().unwrap();
    let script = format!("echo >> {}; kill -XCPU $$", tries.path().display());
    let engine = Engine::builder()
        .max_instances(4)
        .compile_apart(CompilerProcess::new("/bin/sh", ["-c", &script]))
        .build()
        .unwrap();
    for _ in 0..2 {
        let error = engine.compile(&fetched(wat(WAT))).await.unwrap_err();
        assert!(matches!(error, CompileError::TooMuchTime { .. }), "{error}");
    }
    // Once as a small one, and once as one that needs much.
    assert_eq!(fs::read(tries.path()).unwrap().len(), 2);
    assert!(engine.compile(&fetched(b"another one")).await.is_err());
}

/// The processes that have begun, when there are so many.
async fn pids(begun: &Path, many: usize) -> Vec<String> {
    loop {
        let text = fs::read_to_string(begun).unwrap();
        if text.lines().count() >= many && text.ends_with('\n') {
            return text.lines().map(ToOwned::to_owned).collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_given_up() {
    const HOUR: Duration = Duration::from_secs(3600);
    let begun = tempfile::NamedTempFile::new().unwrap();
    let script = format!("echo $$ >> {}; exec sleep 600", begun.path().display());
    let engine = Engine::builder()
        .max_instances(4)
        // Not for its time, which would be over some minutes later.
        .compile_apart(CompilerProcess::new("/bin/sh", ["-c", &script]).max_time(HOUR))
        .build()
        .unwrap();
    let waits =
        |engine: Engine| tokio::spawn(async move { engine.compile(&fetched(wat(WAT))).await });
    let (first, second) = (waits(engine.clone()), waits(engine.clone()));
    let pid = pids(begun.path(), 1).await.remove(0);
    first.abort();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let process = format!("/proc/{pid}");
    assert!(fs::exists(&process).unwrap(), "somebody waits for it still");
    second.abort();
    let gone = async {
        while fs::exists(&process).unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .expect("it is ended");
    let third = waits(engine);
    assert_eq!(pids(begun.path(), 2).await.len(), 2);
    third.abort();
}
