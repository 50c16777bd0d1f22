//! Components of one workload that are linked to each other.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::local::{Local, folder, path, wasm, workload, yaml};

/// The workload `app` of two components in this folder: `front`, and `back` that it imports.
fn two(front: Value, back: Value) -> Value {
    let part = |name: &str, more: Value| {
        let mut part = json!({"name": name, "image": format!("file:./{name}.wasm")});
        if let (Some(part), Value::Object(more)) = (part.as_object_mut(), more) {
            part.extend(more);
        }
        part
    };
    let mut app = workload("app", "v1", json!({}));
    app["spec"]["components"] = json!([part("front", front), part("back", back)]);
    app
}

#[tokio::test]
async fn two_components_answer_as_one_and_change_as_one() -> Result<()> {
    let dir = folder("composition")?;
    let back = fs::read(wasm("compose-back"))?;
    fs::copy(wasm("compose-front"), dir.join("front.wasm"))?;
    fs::write(dir.join("back.wasm"), &back)?;
    let file = dir.join("app.yaml");
    fs::write(&file, yaml(&[two(json!({}), json!({}))]))?;
    let local = Local::start(&[path(&file)?]).await?;
    let hello = "hello you, from the back";
    local.answers("app.test", "/hello?name=you", hello).await?;
    let (_, took) = local.get("app.test", "/calls?n=10000").await?;
    ensure!(took.parse::<u64>().is_ok(), "{took}");

    // Another greeting of the same length.
    let changed = String::from_utf8_lossy(&back).contains(", from the back");
    ensure!(changed, "the greeting is in the file");
    fs::write(
        dir.join("back.wasm"),
        replaced(&back, b"from the back", b"from the rear"),
    )?;
    let hello = "hello you, from the rear";
    local.answers("app.test", "/hello?name=you", hello).await?;

    // What cannot be linked leaves what can.
    fs::copy(wasm("v1"), dir.join("back.wasm"))?;
    local.says("washlet-test:greeter/greet@1.0.0").await?;
    let served = local.get("app.test", "/hello?name=you").await?;
    ensure!(served == (200, hello.to_owned()), "{served:?}");
    Ok(())
}

#[tokio::test]
async fn each_component_has_its_own_grants() -> Result<()> {
    let dir = folder("composition")?;
    fs::copy(wasm("compose-front"), dir.join("front.wasm"))?;
    fs::copy(wasm("compose-back"), dir.join("back.wasm"))?;
    let file = dir.join("app.yaml");
    // Both import all of it.
    let granted = |value: &str, hosts: Value| {
        json!({"localResources": {
            "environment": {"config": {"NAME": value}},
            "config": {"key": value},
            "allowedHosts": hosts,
        }})
    };
    let front = granted("of the front", json!(["http://127.0.0.1:9"]));
    let back = granted("of the back", json!([]));
    fs::write(&file, yaml(&[two(front.clone(), back.clone())]))?;
    let local = Local::start(&[path(&file)?]).await?;
    for part in ["front", "back"] {
        for query in ["variable=NAME", "config=key"] {
            let path = format!("/{part}?{query}");
            local
                .answers("app.test", &path, &format!("of the {part}"))
                .await?;
        }
    }
    let (_, refused) = local
        .get("app.test", "/front?authority=127.0.0.1:9")
        .await?;
    ensure!(refused == "ConnectionRefused", "nobody listens: {refused}");
    let (_, denied) = local.get("app.test", "/back?authority=127.0.0.1:9").await?;
    ensure!(denied == "HttpRequestDenied", "{denied}");
    local
        .says(r#""component":"back","rule":"http://127.0.0.1:9""#)
        .await?;

    // The other way round, in a new generation.
    fs::write(&file, yaml(&[two(back, front)]))?;
    local
        .answers("app.test", "/front?variable=NAME", "of the back")
        .await?;
    let (_, denied) = local
        .get("app.test", "/front?authority=127.0.0.1:9")
        .await?;
    ensure!(denied == "HttpRequestDenied", "{denied}");
    Ok(())
}

#[tokio::test]
async fn what_is_linked_into_one_has_one_fuel() -> Result<()> {
    let dir = folder("composition")?;
    fs::copy(wasm("compose-front"), dir.join("front.wasm"))?;
    fs::copy(wasm("compose-back"), dir.join("back.wasm"))?;
    let file = dir.join("app.yaml");
    let fuel = |fuel: u64| json!({"localResources": {"fuel": fuel}});
    let write = |front, back| fs::write(&file, yaml(&[two(front, back)]));

    write(fuel(1_000_000), json!({}))?;
    let local = Local::start(&[path(&file)?]).await?;
    local
        .says(r#"only "front" has localResources.fuel"#)
        .await?;

    write(fuel(1_000_000), fuel(1_000_000))?;
    let hello = "hello you, from the back";
    local.answers("app.test", "/hello?name=you", hello).await?;
    // Each call is some hundred instructions, so it ends by fuel, and not by time.
    let (status, body) = local.get("app.test", "/calls?n=1000000000").await?;
    ensure!(
        (status, body.as_str()) == (500, "the component used up its fuel\n"),
        "{status}: {body}"
    );
    local.says(r#""reason":"OutOfFuel""#).await?;
    local.answers("app.test", "/hello?name=you", hello).await
}

/// The bytes, with each `from` as a `to` of the same length.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at: Vec<usize> = (0..bytes.len())
        .filter(|&at| bytes[at..].starts_with(from))
        .collect();
    for at in at {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}
