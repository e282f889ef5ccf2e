//! Keeping a course on disk: one file for each protection.

use std::path::PathBuf;
use std::{fs, io};

use domain::id::ProtectionId;
use service::folder::replace;

use super::course::{Course, FORMAT};

/// Where courses are kept.
#[derive(Debug, Clone)]
pub struct Courses {
    folder: PathBuf,
}

impl Courses {
    /// In this folder, which is made if need be.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn in_folder(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    fn path(&self, protection: ProtectionId) -> PathBuf {
        self.folder.join(file_name(protection))
    }

    /// The course of a protection. One that cannot be read is as none: then
    /// everything is compared with what the keeper has, and nothing is lost.
    #[must_use]
    pub fn read(&self, protection: ProtectionId) -> Course {
        let path = self.path(protection);
        let read = || -> io::Result<Option<Course>> {
            match fs::read(&path) {
                Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        match read() {
            Ok(Some(course)) if course.format == FORMAT => course,
            Ok(None) => Course::default(),
            Ok(Some(course)) => {
                tracing::warn!(path = %path.display(), format = course.format, "a course of an unknown format is passed over");
                Course::default()
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a course cannot be read and is passed over");
                Course::default()
            }
        }
    }

    /// Keeps a course. Durable on return.
    ///
    /// # Errors
    /// The folder is full or the like; the former course then still stands.
    pub fn keep(&self, protection: ProtectionId, course: &Course) -> io::Result<()> {
        replace(&self.folder, &file_name(protection), &serde_json::to_vec(course)?)
    }

    /// Removes the course of a protection that ended.
    pub fn forget(&self, protection: ProtectionId) {
        let path = self.path(protection);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a course");
        }
    }

    /// The protections with a course.
    #[must_use]
    pub fn all(&self) -> Vec<ProtectionId> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let ids = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".json")?.parse().ok()
        });
        ids.collect()
    }
}

fn file_name(protection: ProtectionId) -> String {
    format!("{protection}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 wrote; it must be readable for ever.
    const GOLDEN: [&str; 2] = [
        include_str!("../../tests/golden/course-1.json"),
        include_str!("../../tests/golden/course-1-carried.json"),
    ];

    #[test]
    fn a_course_comes_back_and_a_broken_one_is_none() {
        let scratch = tempfile::tempdir().unwrap();
        let courses = Courses::in_folder(scratch.path().join("courses")).unwrap();
        let id = ProtectionId::new(uuid::Uuid::from_u128(9));
        assert_eq!(courses.read(id), Course::default());
        for text in GOLDEN {
            let golden: Course = serde_json::from_str(text).unwrap();
            courses.keep(id, &golden).unwrap();
            assert_eq!(courses.read(id), golden);
            assert_eq!(serde_json::to_string_pretty(&golden).unwrap(), text.trim());
        }
        assert_eq!(courses.all(), [id]);
        fs::write(courses.path(id), b"{").unwrap();
        assert_eq!(courses.read(id), Course::default());
        courses.forget(id);
        courses.forget(id);
        assert!(courses.all().is_empty());
    }
}
