//! Compiling takes nothing from others, whatever becomes of it.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use washlet_e2e::{Artifact, eventually, tasks::children, with_namespace};

use super::{Failure, heals, heals_untouched, while_answering};
use crate::stage::{HEAL, Stage, guest, repository_of};

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
