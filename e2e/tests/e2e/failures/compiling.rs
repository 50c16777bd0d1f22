//! Compiling takes nothing from others, whatever becomes of it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use washlet_e2e::{
    Agent, AgentOptions, Artifact, eventually,
    tasks::{children, threads},
    with_namespace,
};

use super::{Failure, heals, heals_untouched, while_answering};
use crate::stage::{HEAL, START, Stage, guest, repository_of};

/// A component of 300 KB that takes the compiler gigabytes: one function in which each of many variables may have the value
/// of many others.
fn tangle() -> Result<Vec<u8>> {
    let locals = 2000;
    let mut text = format!(
        "(component (core module (func (local{}) (loop",
        " i32".repeat(locals)
    );
    for n in 0..20_000 {
        let (to, from) = (n * 7919 % locals, n * 104_729 % locals);
        write!(
            text,
            " (if (local.get {to}) (then (local.set {to} (i32.add (local.get {from}) (i32.const 1)))))"
        )?;
    }
    Ok(wat::parse_str(text + " (br 0)))))")?)
}

#[tokio::test]
async fn a_component_that_takes_too_much_to_compile_is_refused_and_a_neighbour_answers()
-> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("good", &image)).await?;
        heals(&stage.agent, ns, "good").await?;

        let tangled = repository_of(ns, "tangle");
        let artifact = Artifact::wasm(&tangle()?);
        stage.registry.push(&tangled, "v1", &artifact).await?;
        let image = stage.registry.image(&tangled, "v1");
        ns.apply_yaml(&stage.workload("tangle", &image)).await?;
        while_answering(&stage.agent, "good.test", async {
            Failure {
                condition: "Linked",
                reason: "CompileFailed",
                says: &[
                    "component \"app\"",
                    &image,
                    "MiB of memory",
                    "largest functions",
                ],
            }
            .shown(ns, "tangle")
            .await
        })
        .await?;
        let left = children(stage.agent.id())?;
        ensure!(left.is_empty(), "{left:?} go on");
        Ok(())
    })
    .await
}

/// As the system does when memory is short.
#[tokio::test]
async fn a_compiler_that_is_killed_is_started_again() -> Result<()> {
    with_namespace(async |ns| {
        let stage = Stage::new(ns).await?;
        let repository = repository_of(ns, "fresh");
        // One that no other agent has compiled; with a custom section to make it another one.
        let mut bytes = guest("v1")?;
        bytes.extend([0, 2, 1, b'x']);
        let artifact = Artifact::wasm(&bytes);
        stage.registry.push(&repository, "v1", &artifact).await?;
        let image = stage.registry.image(&repository, "v1");
        ns.apply_yaml(&stage.workload("hello", &image)).await?;
        let compiler = async {
            loop {
                if let Some(id) = children(stage.agent.id())?
                    .first()
                    .copied()
                    .and_then(Pid::from_raw)
                {
                    kill_process(id, Signal::KILL)?;
                    return Ok::<_, anyhow::Error>(());
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(HEAL, compiler).await??;
        eventually("a line about it", HEAL, async || {
            let log = stage.agent.log()?;
            let told = log.contains("the compiler's process ended with signal: 9");
            Ok(if told { Ok(()) } else { Err("none") })
        })
        .await?;
        heals_untouched(&stage.agent, ns, "hello").await
    })
    .await
}

/// How many compile at a time with this much memory for it: two small ones, and one that needs much.
const COMPILE_MEMORY: &str = "--compile-memory=1Gi";
const AT_A_TIME: usize = 3;
/// So much nicer than the agent is a compiler.
const NICER: i64 = 10;
/// When the kubelet gives up on `/livez`, as the chart has it.
const PROBE: Duration = Duration::from_secs(5);

/// What was seen of the compilers of an agent.
#[derive(Debug, Default)]
struct Seen {
    /// Most processes at a time.
    most: usize,
    /// The niceness of their threads, by process.
    nice: BTreeMap<i32, Vec<i64>>,
}

impl Seen {
    /// Looks at the processes that there are now; says whether there are any.
    fn look(&mut self, agent: u32) -> Result<bool> {
        let processes = children(agent)?;
        self.most = self.most.max(processes.len());
        for process in &processes {
            // It makes itself nicer before it starts threads, and may have ended by now.
            let threads = threads(u32::try_from(*process)?).unwrap_or_default();
            if threads.len() > 1 {
                let nice = threads.iter().map(|thread| thread.nice).collect();
                self.nice.insert(*process, nice);
            }
        }
        Ok(!processes.is_empty())
    }
}

/// Asks for `/livez` while compilers are looked at, for ever; fails if an answer is another one or late.
async fn alive(agent: &Agent, seen: &mut Seen, asked: &mut Vec<Duration>) -> Result<()> {
    loop {
        let compiles = seen.look(agent.id())?;
        let begun = Instant::now();
        let (status, body) = agent.get_admin("/livez").await?;
        ensure!(status == 200, "/livez answers {status}: {body}");
        ensure!(begun.elapsed() < PROBE, "/livez took {:?}", begun.elapsed());
        if compiles {
            asked.push(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_burst_of_starts_starves_neither_the_listener_nor_the_probe() -> Result<()> {
    with_namespace(async |ns| {
        let options = AgentOptions {
            args: vec![COMPILE_MEMORY.to_owned()],
            ..AgentOptions::default()
        };
        let stage = Stage::with(ns, options).await?;
        let image = stage.push(ns, "v1", "v1").await?;
        ns.apply_yaml(&stage.workload("good", &image)).await?;
        heals(&stage.agent, ns, "good").await?;

        let names: Vec<String> = (0..12).map(|number| format!("burst-{number}")).collect();
        let mut manifests = Vec::new();
        for (number, name) in (0..).zip(&names) {
            // A large one, of which a custom section makes another one each time.
            let mut bytes = guest("echo-p3")?;
            bytes.extend([0, 2, 1, number]);
            let repository = repository_of(ns, name);
            let artifact = Artifact::wasm(&bytes);
            stage.registry.push(&repository, "v1", &artifact).await?;
            let image = stage.registry.image(&repository, "v1");
            manifests.push(stage.workload(name, &image));
        }
        let (mut seen, mut asked) = (Seen::default(), Vec::new());
        let all_start = while_answering(&stage.agent, "good.test", async {
            ns.apply_yaml(&manifests.join("---\n")).await?;
            for name in &names {
                let ready = ("Ready", "True");
                ns.wait_for_condition(("Workload", name), ready, None, START)
                    .await
                    .with_context(|| name.clone())?;
            }
            Ok(())
        });
        tokio::select! {
            done = all_start => done,
            broken = alive(&stage.agent, &mut seen, &mut asked) => broken,
        }?;
        eprintln!(
            "/livez asked {} times while compiling, slowest {:?}; {seen:?}",
            asked.len(),
            asked.iter().max()
        );
        ensure!(
            (2..=AT_A_TIME).contains(&seen.most),
            "{} at a time",
            seen.most
        );
        ensure!(!asked.is_empty(), "nothing was asked while they compiled");
        let own = threads(stage.agent.id())?;
        let own = own.iter().map(|thread| thread.nice).min();
        let wanted = own.context("the agent has no threads")? + NICER;
        let mut all = seen.nice.values().flatten();
        ensure!(
            !seen.nice.is_empty() && all.all(|nice| *nice == wanted.min(19)),
            "not all are {wanted}: {seen:?}"
        );
        Ok(())
    })
    .await
}
