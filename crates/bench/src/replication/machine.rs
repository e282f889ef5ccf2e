//! A machine without a guest: a raw file, served by `qemu-nbd` as QEMU serves a
//! disk of a backup, and a dirty bitmap beside it, served by us.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use agent::capture::{
    Base, Capture, CaptureError, CheckpointName, Consistency, Cut, CutDisk, CutRequest, DiskReader,
    Way, WholeReason, cut::Hold, error::Of,
};
use anyhow::{Context as _, Result};
use domain::{id::MachineUuid, units::milliseconds};
use nbd::{
    client::{Address, Client, ClientOptions},
    memory::MemoryExport,
    protocol::{chunk::StatusExtent, constants::BASE_ALLOCATION},
    server::{Exports, Listener, Server as NbdServer, ServerOptions},
};

use time::OffsetDateTime;

use crate::{
    content::{Noise, scattered},
    image::Image,
    process::{Server, program},
    workplace::Workplace,
};

/// What a bitmap tells apart, as QEMU's do.
pub(crate) const BLOCK: u64 = 64 << 10;
const BITMAP: &str = "changes";

/// Dirty bitmaps of all machines, over NBD.
#[derive(Clone)]
pub(crate) struct Bitmaps {
    exports: Exports,
    address: Address,
    _server: Arc<NbdServer>,
}

impl Bitmaps {
    pub(crate) async fn serve(place: &Workplace) -> Result<Self> {
        let socket = place.path("bitmaps.sock");
        place.clear(&socket)?;
        let exports = Exports::new();
        let listener = Listener::unix(&socket, 0o600).await?;
        let server = NbdServer::start(listener, exports.clone(), ServerOptions::default());
        Ok(Self { exports, address: Address::unix(&socket), _server: Arc::new(server) })
    }
}

/// The machine's disk; what a guest would do to it.
pub(crate) struct Disk {
    path: PathBuf,
    socket: PathBuf,
    file: File,
    size: u64,
    dirty: Mutex<BTreeSet<u64>>,
    /// Which blocks were overwritten so far: others come next.
    written: Mutex<u64>,
    _server: Server,
}

impl Disk {
    /// A disk with the first `size` bytes of the image.
    pub(crate) fn make(
        place: &Workplace,
        name: &str,
        image: &Image,
        size: u64,
    ) -> Result<Arc<Self>> {
        let path = place.path(&format!("{name}.raw"));
        let mut from = File::open(image.path())?;
        let mut to = File::create(&path).context("make a disk")?;
        std::io::copy(&mut std::io::Read::take(&mut from, size), &mut to).context("fill a disk")?;
        place.quiesce()?;
        let socket = place.path(&format!("{name}.sock"));
        let server = Server::start(&mut qemu_nbd(&socket, &path), &socket)?;
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Arc::new(Self {
            path,
            socket,
            file,
            size,
            dirty: Mutex::default(),
            written: Mutex::default(),
            _server: server,
        }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the disk for programs that read it over NBD.
    pub(crate) fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Overwrites `count` blocks, wherever, with blocks of the image that are
    /// not zero and differ from what was there.
    pub(crate) fn overwrite(&self, image: &Image, count: u64) -> Result<()> {
        let source = File::open(image.path())?;
        let (blocks, choices) = (self.size / BLOCK, image.size() / BLOCK);
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut noise = Noise::new(*written + 1);
        let (mut before, mut after) = (vec![0; BLOCK as usize], vec![0; BLOCK as usize]);
        for _ in 0..count {
            let block = scattered(*written, blocks);
            *written += 1;
            self.file.read_exact_at(&mut before, block * BLOCK)?;
            // Of a hundred places one will do: most are not zero.
            for _ in 0..100 {
                source.read_exact_at(&mut after, noise.below(choices) * BLOCK)?;
                if after != before && after.iter().any(|byte| *byte != 0) {
                    break;
                }
            }
            self.file.write_all_at(&after, block * BLOCK)?;
            self.dirty().insert(block);
        }
        Ok(())
    }

    /// Ends its server and removes it.
    pub(crate) fn remove(self: Arc<Self>) -> Result<()> {
        fs::remove_file(&self.path).context("remove a disk")
    }

    fn dirty(&self) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As `qemu:dirty-bitmap` tells it.
    fn map(&self, dirty: &BTreeSet<u64>) -> Vec<StatusExtent> {
        let mut map: Vec<StatusExtent> = Vec::new();
        let mut at = 0;
        let mut add = |length: u64, flags: u64| match map.last_mut() {
            Some(last) if last.flags == flags => last.length += length,
            _ if length > 0 => map.push(StatusExtent { length, flags }),
            _ => {}
        };
        for block in dirty {
            let start = block * BLOCK;
            let end = (start + BLOCK).min(self.size);
            add(start - at, 0);
            add(end - start, 1);
            at = end;
        }
        add(self.size - at, 0);
        map
    }
}

fn qemu_nbd(socket: &Path, disk: &Path) -> std::process::Command {
    let mut command = program("qemu-nbd");
    command.args(["--persistent", "--shared=8", "--read-only", "--cache=writeback"]);
    command.args(["--format=raw", "--socket"]).arg(socket).arg(disk);
    command
}

/// Captures a [`Disk`].
pub(crate) struct Simulated {
    machine: MachineUuid,
    disk: Arc<Disk>,
    bitmaps: Bitmaps,
    /// The cut that was accepted last.
    last: Option<CheckpointName>,
    /// What was dirty at the open cut, which has this number.
    open: (u64, BTreeSet<u64>),
}

impl Simulated {
    pub(crate) fn new(machine: MachineUuid, disk: &Arc<Disk>, bitmaps: &Bitmaps) -> Self {
        Self {
            machine,
            disk: Arc::clone(disk),
            bitmaps: bitmaps.clone(),
            last: None,
            open: (0, BTreeSet::new()),
        }
    }

    fn of(&self) -> Of {
        Of { machine: self.machine, disk: Some("vda".to_owned()) }
    }

    fn export(&self) -> String {
        format!("{}-{}", self.machine, self.open.0)
    }

    async fn connect(
        &self,
        address: &Address,
        export: &str,
        context: &str,
    ) -> Result<Client, CaptureError> {
        let options = ClientOptions::export(export).context(context);
        let client = Client::connect(address, options).await;
        client.map_err(|source| CaptureError::Open { of: self.of(), source })
    }

    fn settle(&mut self, cut: Cut) -> BTreeSet<u64> {
        self.bitmaps.exports.remove(&self.export());
        cut.hold.settle();
        std::mem::take(&mut self.open.1)
    }
}

impl Capture for Simulated {
    async fn cut(&mut self, request: CutRequest) -> Result<Cut, CaptureError> {
        self.open.0 += 1;
        let mut fresh = std::mem::take(&mut *self.disk.dirty());
        self.open.1.append(&mut fresh);
        let instant = milliseconds(OffsetDateTime::now_utc()).cast_unsigned();
        let data = self.connect(&Address::unix(&self.disk.socket), "", BASE_ALLOCATION).await?;
        let known = request.since.filter(|since| self.last.as_ref() == Some(since));
        let (base, changes) = match known {
            None => (Base::Whole(WholeReason::First), None),
            Some(since) => {
                let context = format!("qemu:dirty-bitmap:{BITMAP}");
                let map = MemoryExport::new(self.disk.size)
                    .with_map(context.clone(), self.disk.map(&self.open.1));
                let offered = self.bitmaps.exports.insert(self.export(), Arc::new(map));
                offered.expect("each cut has a number of its own");
                let client = self.connect(&self.bitmaps.address, &self.export(), &context).await?;
                (Base::Since(since), Some((client, BITMAP)))
            }
        };
        Ok(Cut {
            of_a_machine_off: false,
            checkpoint: Some(CheckpointName::draw()),
            instant,
            consistency: Consistency::Crash { short_of_app: None },
            configuration: "x".repeat(4000),
            disks: vec![CutDisk {
                target: "vda".to_owned(),
                size: self.disk.size,
                way: Way::Bitmap,
                base,
                reader: DiskReader::over(self.of(), data, changes),
            }],
            hold: Hold::new(self.open.0).0,
        })
    }

    async fn confirm(&mut self, _: &Cut) -> Result<(), CaptureError> {
        Ok(())
    }

    async fn accept(&mut self, cut: Cut) -> Result<(), CaptureError> {
        self.last.clone_from(&cut.checkpoint);
        self.settle(cut);
        Ok(())
    }

    async fn discard(&mut self, cut: Cut) -> Result<(), CaptureError> {
        let mut lost = self.settle(cut);
        self.disk.dirty().append(&mut lost);
        Ok(())
    }

    async fn forget(&mut self) -> Result<(), CaptureError> {
        Ok(())
    }
}
