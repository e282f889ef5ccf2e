//! Images of all other formats, which `qemu-nbd` reads for us.

use std::{
    collections::hash_map::RandomState,
    fs::{self, DirBuilder},
    hash::BuildHasher,
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nbd::{
    client::{Address, Client, ClientOptions, Walk, WalkExtent},
    protocol::constants::{BASE_ALLOCATION, STATE_ZERO},
};
use tokio::runtime::{Builder, Runtime};

use super::{fault::ImportError, image::Image};
use crate::offline_copy::ImageKind;

/// How long `qemu-nbd` may take to open an image.
const OPENING: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct ServedImage {
    path: PathBuf,
    size: u64,
    client: Client,
    walk: Option<Walk>,
    /// Where the walk has come to.
    current: Option<WalkExtent>,
    runtime: Runtime,
    _process: Process,
}

impl ServedImage {
    pub(crate) fn open(path: &Path, kind: ImageKind) -> Result<Self, ImportError> {
        // An absolute path is never taken for an address.
        let failed = |source| ImportError::File { path: path.to_owned(), source };
        let path = path.canonicalize().map_err(failed)?;
        stands_alone(&path, kind)?;
        let mut process = Process::start(&path, kind)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| refused(&path, error.to_string()))?;
        let client = runtime.block_on(process.connect(&path))?;
        let size = client.info().size;
        let knows = client.info().contexts.iter().any(|known| known.name == BASE_ALLOCATION);
        let walk = knows.then(|| client.walk(BASE_ALLOCATION, 0, size));
        Ok(Self { path, size, client, walk, current: None, runtime, _process: process })
    }
}

impl Image for ServedImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn zeroes_until(&mut self, at: u64) -> Result<u64, ImportError> {
        let Some(walk) = &mut self.walk else { return Ok(at) };
        let end = |extent: &WalkExtent| extent.offset + extent.length;
        while self.current.as_ref().is_none_or(|extent| end(extent) <= at) {
            let failed = |source| ImportError::Served { path: self.path.clone(), source };
            self.current = self.runtime.block_on(walk.next()).map_err(failed)?;
            if self.current.is_none() {
                return Ok(at);
            }
        }
        let zeroes = self.current.filter(|extent| extent.flags & STATE_ZERO != 0);
        Ok(zeroes.as_ref().map_or(at, end))
    }

    fn read(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), ImportError> {
        let failed = |source| ImportError::Served { path: self.path.clone(), source };
        let unit = u64::from(self.client.info().block_sizes.minimum).max(1);
        let most = u64::from(self.client.max_length()) / unit * unit;
        let mut done = 0;
        while done < buffer.len() {
            let from = at + done as u64;
            let length = ((buffer.len() - done) as u64).div_ceil(unit) * unit;
            let length = length.min(most).min(self.size - from);
            let bytes = self.runtime.block_on(self.client.read(from, length as u32));
            let bytes = bytes.map_err(failed)?;
            let target = buffer.get_mut(done..).unwrap_or_default();
            target.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
            done += bytes.len();
        }
        Ok(())
    }
}

/// Refuses an image that is not whole without another file.
fn stands_alone(path: &Path, kind: ImageKind) -> Result<(), ImportError> {
    let tool = |message| ImportError::Tool { tool: "qemu-img", path: path.to_owned(), message };
    let output = Command::new("qemu-img")
        .args(["info", "--output=json", "-f", kind.name()])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| tool(error.to_string()))?;
    if !output.status.success() {
        return Err(tool(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let facts: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| tool(error.to_string()))?;
    let others = ["/backing-filename", "/format-specific/data/data-file"];
    match others.iter().find_map(|place| facts.pointer(place)) {
        Some(on) => {
            let on = on.as_str().unwrap_or("another file").to_owned();
            Err(ImportError::StandsOn { path: path.to_owned(), on })
        }
        None => Ok(()),
    }
}

fn refused(path: &Path, message: String) -> ImportError {
    ImportError::Tool { tool: "qemu-nbd", path: path.to_owned(), message }
}

/// `qemu-nbd` with its socket. It ends with this, and by itself when its only
/// client is gone, were it killed.
struct Process {
    child: Child,
    folder: PathBuf,
}

impl Process {
    fn start(path: &Path, kind: ImageKind) -> Result<Self, ImportError> {
        let number = RandomState::new().hash_one(std::process::id());
        let folder = std::env::temp_dir().join(format!("lifeboat-import-{number:016x}"));
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|source| ImportError::File { path: folder.clone(), source })?;
        let child = Command::new("qemu-nbd")
            .args(["--read-only", "--shared=1", "--format", kind.name(), "--socket"])
            .arg(folder.join("nbd"))
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        match child {
            Ok(child) => Ok(Self { child, folder }),
            Err(error) => {
                let _ = fs::remove_dir(&folder);
                Err(refused(path, error.to_string()))
            }
        }
    }

    async fn connect(&mut self, path: &Path) -> Result<Client, ImportError> {
        let address = Address::unix(self.folder.join("nbd"));
        let start = Instant::now();
        loop {
            let options = ClientOptions::default().context(BASE_ALLOCATION);
            let error = match Client::connect(&address, options).await {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err(refused(path, self.said()));
            }
            if start.elapsed() > OPENING {
                return Err(refused(path, error.to_string()));
            }
            thread::sleep(LOOK);
        }
    }

    /// What it complained about before it ended.
    fn said(&mut self) -> String {
        let mut said = String::new();
        let read = self
            .child
            .stderr
            .take()
            .map_or(Ok(0), |stderr| stderr.take(4096).read_to_string(&mut said));
        let _: io::Result<usize> = read;
        said.trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
