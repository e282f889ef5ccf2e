//! The product's own programs in the lab: a controller at the third place,
//! agents at the sites, and the CLI to talk to them.
//!
//! Stories see the product as an operator does: by its binary, its exit codes
//! and what it prints. Only the types of what it prints are shared, since they
//! are its contract.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

mod agent;
mod clock;
mod controller;
mod deployment;
pub mod duties;
mod points;
mod program;

pub use agent::Agent;
pub use controller::{Answer, Controller};
pub use deployment::Deployment;
pub use points::{Opened, Points, STORE};

/// The product's binary: `LIFEBOAT_BIN`, or `lifeboat` beside this program.
///
/// # Errors
/// When it was not built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("LIFEBOAT_BIN") {
        return Ok(path.into());
    }
    let own = env::current_exe().context("find this program")?;
    // Tests lie one folder deeper, in `deps`.
    let folders = own.ancestors().skip(1).take(2);
    let mut found = folders.map(|folder| folder.join("lifeboat")).filter(|path| path.exists());
    found.next().with_context(|| {
        format!("lifeboat is not beside {}: run `cargo build -p cli`", own.display())
    })
}
