//! What the store asks of a file system, and no more.
//!
//! Files are written once from front to back and never overwritten, renamed
//! or truncated, so that the same store fits into object storage. Two media
//! exist: a [`folder`] and a [`simulated`] one that fails on command.

pub mod folder;
pub mod simulated;

use std::{fmt, io, sync::Arc};

use crate::geometry::Cycle;

/// Where a machine's files lie. Names are relative, with at most one folder:
/// `seg/0000002a-00000001.seg`.
pub trait Medium: Send + Sync + fmt::Debug + 'static {
    /// Creates a file for appending. Its **name is durable on return**.
    ///
    /// # Errors
    /// `AlreadyExists` if there is such a file, and whatever the system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// `NotFound`, and whatever the system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Creates a file with these contents: durable on return, name and all.
    /// A crash may leave a part of it under that name, so contents prove
    /// themselves by a checksum.
    ///
    /// # Errors
    /// `AlreadyExists` if somebody else was first, and whatever the system
    /// says.
    fn publish(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let file = self.create(name)?;
        file.append(contents)?;
        file.sync()
    }

    /// Names and lengths of the files in `folder`, in order of name.
    ///
    /// # Errors
    /// Whatever the system says; a folder that does not exist is empty.
    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>>;

    /// Deletes a file. Not durable: after a crash it may be back.
    ///
    /// # Errors
    /// Whatever the system says; a file that does not exist is fine.
    fn delete(&self, name: &str) -> io::Result<()>;

    /// Room on the medium.
    ///
    /// # Errors
    /// Whatever the system says.
    fn space(&self) -> io::Result<Space>;

    /// Opens a file outside of the store that was adopted.
    ///
    /// # Errors
    /// `NotFound`, and whatever the system says.
    fn adopted(&self, path: &str) -> io::Result<Arc<dyn File>>;

    /// What tells whether a file outside of the store was changed.
    ///
    /// # Errors
    /// `NotFound`, and whatever the system says.
    fn identity(&self, path: &str) -> io::Result<Identity>;

    /// Keeps a point for as long as what is returned lives, whatever process
    /// writes to the store.
    ///
    /// # Errors
    /// Whatever the system says, such as that the medium is read-only.
    fn pin(&self, point: Cycle) -> io::Result<Box<dyn Send + Sync>>;

    /// The points that are kept by [`pin`](Self::pin), and a lock that keeps
    /// others from pinning more while it lives.
    ///
    /// # Errors
    /// Whatever the system says.
    fn pinned(&self) -> io::Result<(Vec<Cycle>, Box<dyn Send + Sync>)>;

    /// Takes the writer's lock, which lasts as long as what is returned.
    ///
    /// # Errors
    /// `WouldBlock` if somebody else holds it.
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>>;
}

/// A file of a [`Medium`].
pub trait File: Send + Sync + fmt::Debug {
    /// Appends. Not durable before [`sync`](Self::sync). After an error any
    /// part may have been written.
    ///
    /// # Errors
    /// Whatever the system says; the file's end is unknown then.
    fn append(&self, data: &[u8]) -> io::Result<()>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` beyond the end, and whatever the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// Whatever the system says.
    fn length(&self) -> io::Result<u64>;

    /// Makes everything that was appended durable. After an error nothing is
    /// known, and **asking again proves nothing**: the system forgets.
    ///
    /// # Errors
    /// Whatever the system says.
    fn sync(&self) -> io::Result<()>;

    /// Makes sure that what is read from now on is what the disk has, not what
    /// an earlier writer's failed sync left in memory. Called before a writer
    /// believes what it finds.
    ///
    /// # Errors
    /// Whatever the system says.
    fn settle(&self) -> io::Result<()>;

    /// Gives back the space of a range, which reads as zeroes then.
    ///
    /// # Errors
    /// `Unsupported` where that cannot be done.
    fn punch(&self, offset: u64, length: u64) -> io::Result<()>;
}

/// What is another after a file was written to or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// In bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified: i64,
    /// The inode's number.
    pub inode: u64,
}

/// Room on a medium, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All there is.
    pub total: u64,
    /// What we may still write.
    pub free: u64,
}
