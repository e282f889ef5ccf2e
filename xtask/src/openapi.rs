//! The checked-in OpenAPI document. That it is up to date is a test of the
//! controller's.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::metadata::root;

pub(crate) fn write() -> Result<()> {
    let output = Command::new("cargo")
        .args(["run", "--locked", "--quiet", "--package", "cli", "--", "controller", "openapi"])
        .current_dir(root())
        .output()
        .context("run lifeboat controller openapi")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::write(root().join("openapi.json"), output.stdout).context("write openapi.json")
}
