//! A folder with one small JSON file for each of several things, by id.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::{fs, io};

use domain::fault::{Code, Fault};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use service::folder::replace;
use uuid::Uuid;

/// What is kept in such a file.
pub trait Filed: Serialize + DeserializeOwned {
    /// The version of its form that is known here; in the file it is `format`.
    const FORMAT: u16;

    /// What it is found by.
    fn id(&self) -> Uuid;
}

/// The folder.
#[derive(Debug)]
pub struct Files<T> {
    folder: PathBuf,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Files<T> {
    fn clone(&self) -> Self {
        Self::in_folder(self.folder.clone())
    }
}

impl<T> Files<T> {
    /// In this folder, which need not be there.
    #[must_use]
    pub const fn in_folder(folder: PathBuf) -> Self {
        Self { folder, kind: PhantomData }
    }

    /// Removes one. No mistake when there is none.
    ///
    /// # Errors
    /// [`Code::DataFolderUnusable`].
    pub fn forget(&self, id: Uuid) -> Result<(), Fault> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(unusable("remove", &path, &error))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.folder.join(file_name(id))
    }
}

impl<T: Filed> Files<T> {
    /// The one with this id, if there is one.
    ///
    /// # Errors
    /// [`Code::DataFolderUnusable`]: it cannot be read.
    pub fn read(&self, id: Uuid) -> Result<Option<T>, Fault> {
        let path = self.path(id);
        match read(&path) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable("read", &path, &error)),
        }
    }

    /// All of them, by id.
    ///
    /// # Errors
    /// See [`read`](Self::read).
    pub fn all(&self) -> Result<Vec<T>, Fault> {
        let failed = |error| unusable("read", &self.folder, &error);
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                all.push(read(&path).map_err(|error| unusable("read", &path, &error))?);
            }
        }
        all.sort_by_key(T::id);
        Ok(all)
    }

    /// Keeps one, in the place of any with its id. Durable on return.
    ///
    /// # Errors
    /// [`Code::DataFolderUnusable`]; the former one then still stands.
    pub fn keep(&self, one: &T) -> Result<(), Fault> {
        let bytes = serde_json::to_vec_pretty(one).expect("the file's form is plain");
        let kept = fs::create_dir_all(&self.folder)
            .and_then(|()| replace(&self.folder, &file_name(one.id()), &bytes));
        kept.map_err(|error| unusable("write", &self.path(one.id()), &error))
    }
}

fn file_name(id: Uuid) -> String {
    format!("{id}.json")
}

/// What the files of all versions have.
#[derive(Deserialize)]
struct Version {
    format: u16,
}

fn read<T: Filed>(path: &Path) -> io::Result<T> {
    let bytes = fs::read(path)?;
    // First, since a newer one may have anything else that is not known here.
    let Version { format } = serde_json::from_slice(&bytes)?;
    if format != T::FORMAT {
        let why = format!("its format {format} is not known here");
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    Ok(serde_json::from_slice(&bytes)?)
}

fn unusable(verb: &str, path: &Path, error: &io::Error) -> Fault {
    let advice = match error.kind() {
        io::ErrorKind::Unsupported => "A newer agent wrote it: install that version again.",
        _ => "Make room in the agent's state folder and make it writable for the agent's user.",
    };
    Fault::new(
        Code::DataFolderUnusable,
        format!("{verb} {}", path.display()),
        error.to_string(),
        advice,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Note {
        format: u16,
        id: Uuid,
    }

    impl Filed for Note {
        const FORMAT: u16 = 1;

        fn id(&self) -> Uuid {
            self.id
        }
    }

    #[test]
    fn a_newer_agents_file_is_named_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::<Note>::in_folder(folder.path().to_owned());
        let note = Note { format: 1, id: Uuid::from_u128(1) };
        files.keep(&note).unwrap();
        assert_eq!(files.read(note.id).unwrap().map(|found| found.id), Some(note.id));
        let newer = format!(r#"{{"format": 2, "id": "{}", "colour": "red"}}"#, note.id);
        fs::write(files.path(note.id), newer).unwrap();
        let fault = files.read(note.id).unwrap_err();
        assert_eq!(fault.cause, "its format 2 is not known here");
        assert!(fault.advice.contains("newer agent"), "{fault:?}");
    }
}
