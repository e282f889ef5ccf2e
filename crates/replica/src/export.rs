//! Points as ordinary files: raw by ourselves, anything else by `qemu-img`,
//! which reads the point over NBD.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use nbd::server::{Exports, Extent, Listener, Server, ServerOptions};
use tokio::process::Command;

use crate::{
    error::{StoreError, StoreResult},
    view::View,
};

/// Bytes that are copied at once.
const COPY: u64 = 1 << 20;

/// Writes a view into a new sparse file: durable on return. Blocks.
///
/// # Errors
/// The file exists or cannot be written, or the view is damaged.
pub fn to_raw(view: &View, path: &Path) -> StoreResult<()> {
    let doing = || StoreError::io(format!("write {}", path.display()));
    let file = File::create_new(path).map_err(doing())?;
    file.set_len(view.size()).map_err(doing())?;
    let mut at = 0;
    while at < view.size() {
        // Whole stretches without data are passed over.
        for stretch in view.allocation(at, view.size() - at, 256)? {
            let end = at + stretch.length;
            while stretch.flags == 0 && at < end {
                let length = COPY.min(end - at);
                for extent in view.extents(at, length)? {
                    if let Extent::Data(bytes) = &extent {
                        file.write_all_at(bytes, at).map_err(doing())?;
                    }
                    at += extent.len();
                }
            }
            at = end;
        }
    }
    file.sync_all().map_err(doing())
}

/// What `qemu-img` can write for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// QEMU's own.
    Qcow2,
    /// Hyper-V's.
    Vhdx,
}

/// Writes a view into a new image of `format`, with `qemu-img` of the host.
/// The socket between us lies beside `path` meanwhile.
///
/// # Errors
/// `qemu-img` is not there or fails; nothing is left of the image then.
pub async fn to_image(view: View, format: ImageFormat, path: &Path) -> StoreResult<()> {
    let socket = Socket(with_ending(path, ".nbd"));
    let failed = |message: String| StoreError::Tool { tool: "qemu-img".to_owned(), message };
    if path.exists() {
        return Err(failed(format!("{} exists", path.display())));
    }
    let exports = Exports::new();
    exports.insert("", Arc::new(view)).map_err(|error| failed(error.to_string()))?;
    let listener =
        Listener::unix(&socket.0, 0o600).await.map_err(|error| failed(error.to_string()))?;
    let server = Server::start(listener, exports, ServerOptions::default());
    let format = match format {
        ImageFormat::Qcow2 => "qcow2",
        ImageFormat::Vhdx => "vhdx",
    };
    let output = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", format])
        .arg(format!("nbd+unix:///?socket={}", socket.0.display()))
        .arg(path)
        .kill_on_drop(true)
        .output()
        .await;
    server.shut_down().await;
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    // What is there is not a whole image.
    let _ = fs::remove_file(path);
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // The listener removes it too; whoever is first.
        let _ = fs::remove_file(&self.0);
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
