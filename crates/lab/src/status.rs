//! What stands on this machine, without touching it.

use std::path::PathBuf;

use anyhow::Result;

use crate::root::{self, State};

/// The lab that runs here, or ran last.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Its folder.
    pub folder: PathBuf,
    /// What it was started for.
    pub story: String,
    /// Whether it was told to live on.
    pub kept: bool,
    /// Names of its places that have power, each with its first process's id.
    pub places: Vec<(String, u32)>,
}

/// The lab that runs here, or ran last and left its files; none when there is
/// neither.
///
/// # Errors
/// When its notes cannot be read.
pub fn standing() -> Result<Option<Standing>> {
    let folder = root::folder();
    let state = State::read(&folder)?;
    Ok(state.map(|state| Standing {
        places: state.alive().into_iter().map(|(name, first)| (name, first.pid)).collect(),
        story: state.story,
        kept: state.kept,
        folder,
    }))
}
