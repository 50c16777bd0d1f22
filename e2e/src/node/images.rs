//! The images that a node has before anything is pulled: the product's, and one that holds a pod's namespaces.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{agent, process};

/// The product, from the binary under test.
pub const WASHLET: &str = "localhost/washlet:dev";
pub(super) const PAUSE: &str = "localhost/washlet-e2e-pause:dev";

/// The files of the two, below the folder of images.
pub(super) const FILES: [&str; 2] = ["washlet.tar", "pause.tar"];

const LIMIT: Duration = Duration::from_secs(120);

/// Writes both archives, as `cargo xtask image` does.
pub(super) fn build(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let washlet = agent::binary()?;
    let beside = |name: &str| {
        let path = washlet.with_file_name(name);
        if !path.is_file() {
            bail!(
                "no `{name}` beside {}: `cargo build --workspace` makes it",
                washlet.display()
            );
        }
        Ok(path)
    };
    let binaries = [washlet.clone(), beside("washlet-e2e-pause")?];
    for ((binary, file), name) in binaries.iter().zip(FILES).zip([WASHLET, PAUSE]) {
        let mut command = Command::new(beside("xtask")?);
        command.arg("image").arg("--binary").arg(binary);
        command
            .args(["--name", name, "--output"])
            .arg(dir.join(file));
        let output = process::run(command, LIMIT).context("making an image")?;
        if !output.status.success() {
            bail!(
                "making the image {name}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        println!("{}", String::from_utf8_lossy(&output.stdout).trim_end());
    }
    Ok(())
}
