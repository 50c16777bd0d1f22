//! The README's Rust example, run: the same text, with a free port in place of 8080.

/// The example as it stands in the README. [`the_example_is_the_readmes`] holds the two together.
mod example {
    // begin
    use std::{collections::HashMap, sync::Arc};
    use wash_runtime::{
        engine::Engine,
        host::{HostApi, HostBuilder},
        plugin::{wasi_config::WasiConfig, wasi_http::HttpServer},
        types::{Workload, WorkloadStartRequest},
    };

    #[tokio::main]
    async fn main() -> anyhow::Result<()> {
        let engine = Engine::builder().build()?;
        let http = HttpServer::new("127.0.0.1:0".parse()?);
        let config = WasiConfig::default();

        let host = HostBuilder::new()
            .with_engine(engine)
            .with_plugin(Arc::new(http))?
            .with_plugin(Arc::new(config))?
            .build()?;
        let host = host.start().await?;

        host.workload_start(WorkloadStartRequest {
            workload: Workload {
                namespace: "test".to_string(),
                name: "test-workload".to_string(),
                annotations: HashMap::new(),
                service: None,
                components: vec![],
                host_interfaces: vec![],
                volumes: vec![],
            },
        })
        .await?;
        Ok(())
    }
    // end

    pub fn run() -> anyhow::Result<()> {
        main()
    }
}

#[test]
fn the_example_runs() {
    example::run().expect("the README's example runs");
}

#[test]
fn the_example_is_the_readmes() {
    let readme = include_str!("../../README.md");
    let block = readme
        .split("```rust,no_run\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("an example");
    let here = include_str!("readme.rs");
    let here = here
        .split("    // begin\n")
        .nth(1)
        .and_then(|rest| rest.split("    // end").next())
        .expect("markers");
    let words = |text: &str| {
        text.replace("127.0.0.1:8080", "127.0.0.1:0")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(words(block), words(here));
}
