//! Reading a disk of a cut: what changed, and the bytes.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use nbd::client::{Address, Client, ClientError, ClientOptions, Walk};
use nbd::protocol::constants::{BASE_ALLOCATION, STATE_HOLE, STATE_ZERO};

use super::error::{CaptureError, Ended, Of};

/// Set in `qemu:dirty-bitmap:` contexts on what was written to. See
/// QEMU's `docs/interop/nbd.rst`.
const DIRTY: u64 = 1;

/// A stretch of a disk whose content may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// First byte.
    pub offset: u64,
    /// Length in bytes; never zero, and of any size.
    pub length: u64,
    /// What stands there now.
    pub kind: StretchKind,
}

/// What stands in a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StretchKind {
    /// Bytes to be read.
    Data,
    /// Zeroes that take up space.
    Zero,
    /// Zeroes that take up none: never written, or discarded.
    Hole,
}

impl StretchKind {
    /// Reads flags of `base:allocation`. A hole that does not read as zeroes
    /// has undefined content, and is read as whatever it is.
    fn of(flags: u64) -> Self {
        match (flags & STATE_ZERO != 0, flags & STATE_HOLE != 0) {
            (true, true) => Self::Hole,
            (true, false) => Self::Zero,
            (false, _) => Self::Data,
        }
    }
}

/// A disk of a cut, as it was at the cut's instant. Cheap to clone; many reads
/// may be in flight.
#[derive(Debug, Clone)]
pub struct DiskReader {
    of: Of,
    /// Knows `base:allocation`.
    data: Client,
    changes: Option<ChangeMap>,
    ended: Arc<OnceLock<Ended>>,
}

/// A connection of its own: a server computes all contexts of a connection in
/// each answer, and where nothing changed the allocation is of no interest.
#[derive(Debug, Clone)]
struct ChangeMap {
    client: Client,
    context: String,
}

impl DiskReader {
    /// Opens a disk that is served at `address` under the name `of.disk`, with
    /// the changes in the dirty bitmap `bitmap`, or all of it as changed.
    ///
    /// # Errors
    /// When there is no connection, or the server lacks what is needed.
    pub async fn open(
        address: &Address,
        of: Of,
        bitmap: Option<&str>,
    ) -> Result<Self, CaptureError> {
        Self::open_until(address, of, bitmap, Arc::default()).await
    }

    /// As [`open`](Self::open), with a word on why reads fail once they do.
    pub(super) async fn open_until(
        address: &Address,
        of: Of,
        bitmap: Option<&str>,
        ended: Arc<OnceLock<Ended>>,
    ) -> Result<Self, CaptureError> {
        let data = connect(address, &of, BASE_ALLOCATION).await?;
        let changes = match bitmap {
            None => None,
            Some(bitmap) => {
                let context = context(bitmap);
                Some(ChangeMap { client: connect(address, &of, &context).await?, context })
            }
        };
        Ok(Self { of, data, changes, ended })
    }

    /// Reads over connections that are there already: one that negotiated
    /// `base:allocation`, and one that negotiated the dirty bitmap with the
    /// name beside it, where only changes are to be told.
    #[must_use]
    pub fn over(of: Of, data: Client, changes: Option<(Client, &str)>) -> Self {
        let changes =
            changes.map(|(client, bitmap)| ChangeMap { client, context: context(bitmap) });
        Self { of, data, changes, ended: Arc::default() }
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.data.info().size
    }

    /// The most bytes that one [`read`](Self::read) may have.
    #[must_use]
    pub fn max_length(&self) -> u32 {
        self.data.max_length()
    }

    /// Goes through what may have changed in a range of bytes, in order.
    #[must_use]
    pub fn changed(&self, range: Range<u64>) -> Changes {
        let end = range.end.min(self.size());
        let length = end.saturating_sub(range.start);
        let dirty = match &self.changes {
            Some(ChangeMap { client, context }) => {
                Dirty::Mapped(Box::new(client.walk(context, range.start, length)))
            }
            None => return self.all(range),
        };
        Changes { reader: self.clone(), dirty, within: None }
    }

    /// Goes through everything that stands in a range of bytes, changed or not,
    /// in order.
    #[must_use]
    pub fn all(&self, range: Range<u64>) -> Changes {
        let end = range.end.min(self.size());
        let dirty = match end.saturating_sub(range.start) {
            0 => Dirty::Nothing,
            length => Dirty::All(range.start, length),
        };
        Changes { reader: self.clone(), dirty, within: None }
    }

    /// Reads `length` bytes, at most [`max_length`](Self::max_length). Small
    /// results may share a larger buffer: copy what is kept for long.
    ///
    /// # Errors
    /// When the disk cannot be read; [`CaptureError::ScratchFull`] and
    /// [`CaptureError::Started`] when the cut has ended for that reason.
    pub async fn read(&self, offset: u64, length: u32) -> Result<Bytes, CaptureError> {
        self.data.read(offset, length).await.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: ClientError) -> CaptureError {
        match self.ended.get() {
            Some(ended) => ended.of(self.of.clone()),
            None => CaptureError::Read { of: self.of.clone(), source },
        }
    }
}

fn context(bitmap: &str) -> String {
    format!("qemu:dirty-bitmap:{bitmap}")
}

async fn connect(address: &Address, of: &Of, context: &str) -> Result<Client, CaptureError> {
    let name = of.disk.clone().unwrap_or_default();
    let options = ClientOptions::export(name).context(context);
    let client = Client::connect(address, options)
        .await
        .map_err(|source| CaptureError::Open { of: of.clone(), source })?;
    if client.info().contexts.iter().any(|known| known.name == context) {
        Ok(client)
    } else {
        let why = format!("the server has no {context}");
        Err(CaptureError::Served { of: of.clone(), why })
    }
}

/// A walk through what changed; see [`DiskReader::changed`].
#[derive(Debug)]
pub struct Changes {
    reader: DiskReader,
    dirty: Dirty,
    /// What the stretch that is dirty consists of.
    within: Option<Box<Walk>>,
}

#[derive(Debug)]
enum Dirty {
    Mapped(Box<Walk>),
    All(u64, u64),
    Nothing,
}

impl Changes {
    /// The next stretch; none at the range's end. Stretches are in order and
    /// do not overlap; what lies between them has not changed. Cancel safe.
    ///
    /// # Errors
    /// As [`DiskReader::read`]; may be called again.
    pub async fn next(&mut self) -> Result<Option<Stretch>, CaptureError> {
        loop {
            if let Some(within) = &mut self.within {
                match within.next().await.map_err(|source| self.reader.failed(source))? {
                    Some(extent) => {
                        return Ok(Some(Stretch {
                            offset: extent.offset,
                            length: extent.length,
                            kind: StretchKind::of(extent.flags),
                        }));
                    }
                    None => self.within = None,
                }
            }
            let Some((offset, length)) = self.next_dirty().await? else {
                return Ok(None);
            };
            let within = self.reader.data.walk(BASE_ALLOCATION, offset, length);
            self.within = Some(Box::new(within));
        }
    }

    async fn next_dirty(&mut self) -> Result<Option<(u64, u64)>, CaptureError> {
        match &mut self.dirty {
            Dirty::Nothing => Ok(None),
            Dirty::All(offset, length) => {
                let all = (*offset, *length);
                self.dirty = Dirty::Nothing;
                Ok(Some(all))
            }
            Dirty::Mapped(walk) => loop {
                match walk.next().await.map_err(|source| self.reader.failed(source))? {
                    Some(extent) if extent.flags & DIRTY != 0 => {
                        return Ok(Some((extent.offset, extent.length)));
                    }
                    Some(_) => {}
                    None => return Ok(None),
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::id::MachineUuid;
    use nbd::memory::{BLOCK, MemoryExport};
    use nbd::protocol::chunk::StatusExtent;
    use nbd::server::{Exports, Listener, Server, ServerOptions};

    use super::*;

    fn bits(parts: &[(u64, u64)]) -> Vec<StatusExtent> {
        parts
            .iter()
            .map(|(blocks, flags)| StatusExtent { length: blocks * BLOCK, flags: *flags })
            .collect()
    }

    async fn all(mut changes: Changes) -> Vec<(u64, u64, StretchKind)> {
        let mut all = Vec::new();
        while let Some(stretch) = changes.next().await.unwrap() {
            all.push((stretch.offset / BLOCK, stretch.length / BLOCK, stretch.kind));
        }
        all
    }

    #[tokio::test]
    async fn changes_are_what_is_dirty_told_apart_by_what_stands_there() {
        use StretchKind::{Data, Hole};
        let disk = MemoryExport::new(16 * BLOCK)
            .with_map("qemu:dirty-bitmap:changes-vda", bits(&[(1, 0), (3, 1), (8, 0), (4, 1)]));
        disk.fill(2 * BLOCK, &[7; 3 * BLOCK as usize]);
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let exports = Exports::new();
        exports.insert("vda", Arc::new(disk)).unwrap();
        let listener = Listener::unix(&socket, 0o600).await.unwrap();
        let server = Server::start(listener, exports, ServerOptions::default());

        let of = Of { machine: MachineUuid::new(uuid::Uuid::nil()), disk: Some("vda".into()) };
        let address = Address::unix(&socket);
        let open = |bitmap| DiskReader::open(&address, of.clone(), bitmap);
        let reader = open(Some("changes-vda")).await.unwrap();
        assert_eq!(
            all(reader.changed(0..reader.size())).await,
            [(1, 1, Hole), (2, 2, Data), (12, 4, Hole)]
        );
        assert_eq!(all(reader.changed(3 * BLOCK..u64::MAX)).await, [(3, 1, Data), (12, 4, Hole)]);
        assert_eq!(all(reader.changed(0..0)).await, []);
        assert_eq!(reader.read(4 * BLOCK, 3).await.unwrap().as_ref(), [7; 3]);

        let whole = open(None).await.unwrap();
        assert_eq!(
            all(whole.changed(0..whole.size())).await,
            [(0, 2, Hole), (2, 3, Data), (5, 11, Hole)]
        );
        assert_eq!(all(whole.changed(16 * BLOCK..17 * BLOCK)).await, []);

        let error = open(Some("changes-vdb")).await.unwrap_err().to_string();
        assert!(error.ends_with("the server has no qemu:dirty-bitmap:changes-vdb"), "{error}");
        server.cut().await;
        let error = whole.read(0, 1).await.unwrap_err();
        assert!(matches!(error, CaptureError::Read { .. }), "{error}");
    }
}
