//! What the controller left with this host, so that another one can go on where
//! it is lost.
//!
//! It lies in two places: among the [duties](crate::duties), and beside the
//! points of each machine, so that a host whose state folder is gone still has
//! it. A host that is enrolled at another controller gathers both into a file of
//! its own, and tells that controller until it is given duties.

use std::fs;
use std::io;
use std::path::Path;

use domain::id::{HostId, ProtectionId};
use replica::catalogue::machines;
use service::folder::replace;
use wire::heritage::{HERITAGE_FORMAT, Heritage, HeritageFile};

use crate::duties;
use crate::identity::StateFolder;

const FILE: &str = "heritage.json";

/// All that was left with this host: in its state folder, and beside the points
/// in the folder of stores.
///
/// # Errors
/// Something of it cannot be read: then it would be lost.
pub fn gather(state: &Path, stores: &Path) -> io::Result<Vec<Heritage>> {
    let mut gathered = duties::read(state)?.heritage;
    let told_before = read(state)?;
    let folders = match machines(stores) {
        Ok(folders) => folders,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut beside = Vec::new();
    for folder in folders {
        beside.extend(read(&folder.path)?);
    }
    for heritage in told_before.into_iter().chain(beside) {
        if gathered.iter().all(|known| known.protection != heritage.protection) {
            gathered.push(heritage);
        }
    }
    Ok(gathered)
}

/// The id under which this host kept points, by what lies beside them.
#[must_use]
pub fn keeper_of(heritage: &[Heritage], stores: &Path) -> Option<HostId> {
    let beside = machines(stores).ok()?;
    let beside = beside.iter().filter_map(|folder| read(&folder.path).ok()).flatten();
    let is_left = |kept: &Heritage| heritage.iter().any(|left| left.protection == kept.protection);
    beside.filter(is_left).map(|kept| kept.target.host).next()
}

/// Keeps what is told to the next controller. Durable on return.
///
/// # Errors
/// The folder is full or the like.
pub fn keep_to_tell(folder: &StateFolder, heritage: &[Heritage]) -> io::Result<()> {
    folder.write(FILE, &form(heritage)?)
}

/// What is to be told to the controller; none if that is done, or if it cannot be
/// read.
#[must_use]
pub fn to_tell(folder: &StateFolder) -> Option<Vec<Heritage>> {
    if !folder.path().join(FILE).exists() {
        return None;
    }
    let left = read(folder.path());
    let unread = |error| tracing::warn!(%error, "what the former controller left cannot be read");
    left.map_err(unread).ok()
}

/// The controller has taken it over: it is told no more.
pub fn told(folder: &StateFolder) {
    match fs::remove_file(folder.path().join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "what the former controller left stays, and is told again");
        }
        _ => {}
    }
}

/// Puts it beside the points of its protection, unless that is there already.
///
/// # Errors
/// The folder is full or the like.
pub(crate) fn put_beside(points: &Path, heritage: &Heritage) -> io::Result<()> {
    let wanted = form(std::slice::from_ref(heritage))?;
    match fs::read(points.join(FILE)) {
        Ok(there) if there == wanted => Ok(()),
        _ => replace(points, FILE, &wanted),
    }
}

/// Takes away what lies beside points that this host has no duty to keep.
pub(crate) fn take_from(points: &Path, protection: ProtectionId) {
    if let Err(error) = fs::remove_file(points.join(FILE))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%protection, %error, "what the controller left beside points stays");
    }
}

fn form(heritage: &[Heritage]) -> io::Result<Vec<u8>> {
    let file = HeritageFile { format: HERITAGE_FORMAT, heritage: heritage.to_vec() };
    Ok(serde_json::to_vec_pretty(&file)?)
}

/// Nothing if there is no such file.
fn read(folder: &Path) -> io::Result<Vec<Heritage>> {
    let path = folder.join(FILE);
    let named =
        |error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", path.display()));
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(named(&error)),
    };
    let file: HeritageFile = serde_json::from_slice(&bytes).map_err(|error| named(&error))?;
    match file.format {
        HERITAGE_FORMAT => Ok(file.heritage),
        other => Err(named(&format_args!("its format {other} is not known here"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 wrote; it must be readable for ever.
    const GOLDEN: &str = include_str!("../tests/golden/heritage-1.json");

    #[test]
    fn what_lies_beside_points_is_gathered_once() {
        let root = tempfile::tempdir().unwrap();
        let (state, stores) = (root.path().join("agent"), root.path().join("stores"));
        let web = stores.join("web");
        fs::create_dir_all(&web).unwrap();
        let file: HeritageFile = serde_json::from_str(GOLDEN).unwrap();
        let folder = StateFolder::open(&state).unwrap();
        assert_eq!(gather(&state, &stores).unwrap(), vec![]);
        put_beside(&web, &file.heritage[0]).unwrap();
        assert_eq!(fs::read_to_string(web.join(FILE)).unwrap().trim(), GOLDEN.trim());
        // By this it is one with points.
        fs::create_dir(web.join("man")).unwrap();
        keep_to_tell(&folder, &file.heritage).unwrap();
        assert_eq!(gather(&state, &stores).unwrap(), file.heritage);
        told(&folder);
        assert_eq!(to_tell(&folder), None);
        take_from(&web, file.heritage[0].protection);
        assert!(!web.join(FILE).exists());
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let newer = GOLDEN.replacen("\"format\": 1", "\"format\": 2", 1);
        fs::write(root.path().join(FILE), newer).unwrap();
        let error = gather(root.path(), root.path()).unwrap_err().to_string();
        assert!(error.contains("heritage.json") && error.contains("format 2"), "{error}");
    }
}
