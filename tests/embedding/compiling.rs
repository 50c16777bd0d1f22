//! Compiling in a process of its own, with the real one: the `washlet` program.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use wash_runtime::{
    engine::{CompileError, CompilerProcess, Engine},
    source::Fetched,
};

fn process() -> CompilerProcess {
    CompilerProcess::new(env!("CARGO_BIN_EXE_washlet"), ["compile"])
}

fn engine(process: CompilerProcess) -> Engine {
    let engine = Engine::builder().max_instances(4).compile_apart(process);
    engine.build().expect("an engine")
}

fn component(core: &str) -> Fetched {
    let text = format!("(component (core module {core}))");
    Fetched::in_memory(wat::parse_str(text).expect("good text").into())
}

/// One function in which everything may depend on everything: its machine code is found in a time, and in memory, that grow
/// as the square of its length.
fn tangle() -> String {
    let (locals, branches) = (2000, 20_000);
    let mut text = format!("(func (local{}) (loop", " i32".repeat(locals));
    for n in 0..branches {
        let (a, b) = (n * 7919 % locals, n * 104_729 % locals);
        let _ = write!(
            text,
            " (if (local.get {a}) (then (local.set {a} (i32.add (local.get {b}) (i32.const 1)))))"
        );
    }
    text + " (br 0)))"
}

/// Many short functions: takes long, and little memory.
fn many() -> String {
    let body = "(local.set 0 (i32.mul (local.get 0) (i32.add (local.get 0) (i32.const 3))))";
    let function = format!(
        "(func (param i32) (result i32) {} (local.get 0))",
        body.repeat(60)
    );
    function.repeat(6000)
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("on Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line
        .and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .expect("a number");
    kib << 10
}

#[tokio::test]
async fn a_component_that_takes_too_much_to_compile_takes_it_from_nobody() {
    let engine = engine(process().max_memory(512 << 20));
    let good = component("(func)");
    let bad = component(&tangle());
    let before = cfg!(target_os = "linux").then(peak);
    let (bad, good) = tokio::join!(engine.compile(&bad), engine.compile(&good));
    good.expect("a neighbour");
    let error = bad.expect_err("too much");
    assert!(
        matches!(error, CompileError::TooMuchMemory { max_memory } if max_memory == 384 << 20),
        "{error}"
    );
    if let Some(before) = before {
        let grown = peak() - before;
        // Other tests compile in this process meanwhile; this component alone would take ten times as much.
        assert!(grown < 256 << 20, "by {grown} bytes");
    }
}

#[tokio::test]
async fn a_component_that_takes_too_long_to_compile_is_refused() {
    let engine = engine(process().max_time(Duration::from_secs(1)));
    let error = engine.compile(&component(&many())).await;
    let error = error.expect_err("too long");
    assert!(matches!(error, CompileError::TooMuchTime { .. }), "{error}");
}

/// Its standard input ends with whoever started it.
#[test]
fn a_compiler_that_nobody_waits_for_ends() {
    let component = wat::parse_str(format!("(component (core module {}))", many()));
    let component = component.expect("good text");
    let size = component.len().to_string();
    let (memory, code) = ((4_u64 << 30).to_string(), (1_u64 << 27).to_string());
    let mut child = Command::new(env!("CARGO_BIN_EXE_washlet"))
        .args(["compile", "plain", &size, "1", &memory, &code, "60"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(&component).expect("all is read");
    std::thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().expect("a child").is_none(), "it compiles");
    drop(stdin);
    let ended = child.wait().expect("a child");
    assert_eq!(ended.code(), Some(1), "{ended}");
}

#[tokio::test]
async fn what_wasmtime_refuses_is_said_as_in_this_process() {
    let bytes = b"\0asm\x0d\0\x01\0\xff\xff";
    let bad = Fetched::in_memory(bytes::Bytes::from_static(bytes));
    let apart = engine(process())
        .compile(&bad)
        .await
        .expect_err("no component");
    let here = Engine::builder()
        .max_instances(4)
        .build()
        .expect("an engine");
    let here = here.compile(&bad).await.expect_err("no component");
    assert_eq!(apart.to_string(), here.to_string());
}
