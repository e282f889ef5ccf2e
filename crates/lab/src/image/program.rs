//! Builds the guest's own program, static, with cargo.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::process::Command;

use crate::run::run_within;

/// How long a first build may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(900);

/// The program as its source is now. A fraction of a second when nothing has
/// changed. `$LIFEBOAT_LAB_GUEST` names a finished program instead.
///
/// It has a target folder of its own: cargo holds no lock of the one that the
/// tests came from while they run, but a guest needs other flags.
pub async fn build() -> Result<PathBuf> {
    if let Some(path) = env::var_os("LIFEBOAT_LAB_GUEST") {
        return Ok(path.into());
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest/Cargo.toml");
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let target = target_folder()?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What the outer cargo tells its tests would change the inner one's mind.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let own = text.starts_with("CARGO_") && text != "CARGO_HOME";
        if own || text.ends_with("RUSTFLAGS") {
            cargo.env_remove(&name);
        }
    }
    cargo
        .args(["build", "--quiet", "--locked", "--release", "--bin", "lifeboat-guest"])
        .arg("--manifest-path")
        .arg(&source)
        .args(["--target", &triple])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols");
    run_within(PATIENCE, &mut cargo, "build the guest's program").await?;
    Ok(target.join(triple).join("release/lifeboat-guest"))
}

/// Beside what this program was built into, or in the user's cache.
fn target_folder() -> Result<PathBuf> {
    let own = env::current_exe().context("find this program")?;
    let mut above = own.ancestors();
    let target = above.find(|folder| folder.join("CACHEDIR.TAG").exists());
    Ok(target.map_or_else(
        || PathBuf::from("/var/cache/lifeboat-lab/target"),
        |target| target.join("lifeboat-guest"),
    ))
}
