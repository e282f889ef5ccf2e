//! Which machines a folder holds.
//!
//! A *store* on a host is a folder with one folder per machine. Finding them
//! opens nothing, so that a machine that is broken, or slow to open, never
//! stands in the way of the others.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::{StoreError, StoreResult},
    medium::folder::Folder,
    state::Limits,
    store::Store,
};

/// Folders of which a machine's folder has at least one, whatever it lost.
const MARKS: [&str; 3] = ["man", "seg", "idx"];

/// A machine's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFolder {
    /// The folder's own name.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
}

impl MachineFolder {
    /// The machine in this very folder, if it is a machine's.
    ///
    /// # Errors
    /// The folder cannot be looked into: it may be a machine's.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        let mut is_machine = false;
        for mark in MARKS {
            is_machine |= is_folder(&path.join(mark))?;
        }
        let whole = path.canonicalize()?;
        let name = whole.file_name().unwrap_or(whole.as_os_str());
        let name = name.to_string_lossy().into_owned();
        Ok(is_machine.then(|| Self { name, path: path.to_owned() }))
    }

    /// Opens it for reading; see [`Store::open`].
    ///
    /// # Errors
    /// It cannot be read at all, or its manifests are gone.
    pub fn open(&self, limits: Limits) -> StoreResult<Store> {
        Store::open(Arc::new(self.medium()?), limits)
    }

    /// Its medium, for a [`Writer`](crate::writer::Writer).
    ///
    /// # Errors
    /// It has no folder of manifests.
    pub fn medium(&self) -> StoreResult<Folder> {
        let doing = || StoreError::io(format!("find the manifests of {}", self.path.display()));
        // Asked for the system's own reason, such as missing rights.
        fs::metadata(self.path.join("man")).map_err(doing())?;
        Folder::existing(&self.path).map_err(doing())
    }
}

/// The machines in a folder, by name; if it is a machine's folder itself, that
/// machine. Other files and folders are passed over.
///
/// # Errors
/// The folder is not there or cannot be read.
pub fn machines(folder: &Path) -> io::Result<Vec<MachineFolder>> {
    if let Some(machine) = MachineFolder::at(folder)? {
        return Ok(vec![machine]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Links to folders count: a machine may lie on another file system.
        let machine = match is_folder(&path) {
            Ok(false) => continue,
            Ok(true) => MachineFolder::at(&path),
            Err(error) => Err(error),
        };
        match machine {
            Ok(machine) => found.extend(machine.map(|machine| MachineFolder { name, ..machine })),
            // Opening it will say why; it must not be passed over in silence.
            Err(_) => found.push(MachineFolder { name, path }),
        }
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn is_folder(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(facts) => Ok(facts.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_machine_hides_nobody_and_is_not_hidden() {
        let scratch = tempfile::tempdir().unwrap();
        for machine in ["b", "a"] {
            Folder::create(scratch.path().join(machine)).unwrap();
        }
        fs::create_dir_all(scratch.path().join("c/seg")).unwrap();
        fs::create_dir_all(scratch.path().join("lost+found")).unwrap();
        fs::write(scratch.path().join("notes"), "").unwrap();
        // As a dead mount would be: nobody can tell what is there.
        std::os::unix::fs::symlink("d", scratch.path().join("d")).unwrap();
        let found = machines(scratch.path()).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|machine| format!("{} {}", machine.name, machine.open(Limits::default()).is_ok()))
            .collect();
        assert_eq!(told, ["a true", "b true", "c false", "d false"]);
        assert_eq!(machines(&scratch.path().join("a")).unwrap(), found[..1]);
        assert!(machines(&scratch.path().join("nowhere")).is_err());
    }
}
