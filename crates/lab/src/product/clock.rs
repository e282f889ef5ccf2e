//! A clock of an agent's own, which can be set while the agent runs: the
//! machine's stays as it is.
//!
//! It is the library of Debian's package faketime, loaded before the C library;
//! it moves the time of day alone, and leaves the clock that nobody sets.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A clock that is wrong by as much as a story wants.
#[derive(Debug)]
pub(super) struct Clock {
    library: PathBuf,
    /// Says by how much.
    file: PathBuf,
}

impl Clock {
    /// One that is right so far, and told by `file`.
    pub(super) fn at(file: PathBuf) -> Result<Self> {
        let architecture = std::env::consts::ARCH;
        let folder = format!("/usr/lib/{architecture}-linux-gnu/faketime");
        let library = Path::new(&folder).join("libfaketimeMT.so.1");
        anyhow::ensure!(library.exists(), "{} is not there: install faketime", library.display());
        let clock = Self { library, file };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it by so many seconds ahead of the machine's, or behind it.
    pub(super) fn set(&self, ahead_seconds: i64) -> Result<()> {
        let new = self.file.with_extension("new");
        // Never read half written.
        fs::write(&new, format!("{ahead_seconds:+}\n"))
            .and_then(|()| fs::rename(&new, &self.file))
            .with_context(|| format!("set {}", self.file.display()))
    }

    /// What goes before the words of a command that shall live by it.
    pub(super) fn words(&self) -> Vec<String> {
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", self.library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }
}
