//! Other people's NBD tools.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use nbd::client::{Address, Client, ClientOptions};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

/// Longest run of a tool.
const LIMIT: Duration = Duration::from_secs(60);

/// Whether all `tools` are installed. Where one is missing the test is
/// skipped aloud, and fails in CI: there it would prove nothing.
pub fn have(tools: &[&str]) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let missing: Vec<_> = tools
        .iter()
        .filter(|tool| !env::split_paths(&path).any(|folder| folder.join(tool).is_file()))
        .collect();
    if missing.is_empty() {
        return true;
    }
    assert!(env::var_os("CI").is_none(), "not installed: {missing:?}");
    eprintln!("SKIPPED: not installed: {missing:?}");
    false
}

/// Runs a tool to its end and gives its output; the tool must succeed.
pub async fn run(tool: &str, arguments: &[&str]) -> String {
    let output = attempt(tool, arguments).await;
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "{tool} {arguments:?} failed: {}\n{out}\n{err}",
        output.status
    );
    out.into_owned()
}

/// Runs a tool to its end, however it ends.
pub async fn attempt(tool: &str, arguments: &[&str]) -> Output {
    let child = Command::new(tool).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    timeout(LIMIT, child)
        .await
        .unwrap_or_else(|_| panic!("{tool} {arguments:?} does not end"))
        .unwrap_or_else(|error| panic!("{tool} {arguments:?}: {error}"))
}

/// A foreign server on a unix socket; it dies with this.
pub struct Peer {
    child: Child,
    pub socket: PathBuf,
    _folder: TempDir,
}

impl Peer {
    /// `arguments` are made from the socket's path.
    pub async fn start(tool: &str, arguments: impl FnOnce(&str) -> Vec<String>) -> Self {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("peer.sock");
        let child = Command::new(tool)
            .args(arguments(socket.to_str().unwrap()))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{tool}: {error}"));
        let mut peer = Self { child, socket, _folder: folder };
        let listening = async {
            while tokio::net::UnixStream::connect(&peer.socket).await.is_err() {
                let ended = peer.child.try_wait().unwrap();
                assert!(ended.is_none(), "{tool} ended: {ended:?}");
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, listening).await.unwrap_or_else(|_| panic!("{tool} does not listen"));
        peer
    }

    pub async fn nbdkit(arguments: &[&str]) -> Self {
        Self::start("nbdkit", |socket| {
            let own = ["-f", "-U", socket];
            own.iter().chain(arguments).map(ToString::to_string).collect()
        })
        .await
    }

    pub async fn qemu_nbd(arguments: &[&str]) -> Self {
        Self::start("qemu-nbd", |socket| {
            let own = ["-t", "-e", "8", "-k", socket];
            own.iter().chain(arguments).map(ToString::to_string).collect()
        })
        .await
    }

    pub fn address(&self) -> Address {
        Address::unix(&self.socket)
    }

    pub async fn client(&self, options: ClientOptions) -> Client {
        Client::connect(&self.address(), options).await.unwrap()
    }

    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}

/// `path` as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
