//! Commands from this host itself: a socket in the state folder that only root
//! and the agent's user can reach, with the same messages as from the
//! controller. So a machine is recovered where its points are, with nobody
//! else's help.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::fault::{Code, Fault};
use futures::{SinkExt as _, StreamExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::codec::Framed;
use tracing::{debug, warn};
use wire::command::{Answer, Answered, Command, Outcome};
use wire::frame::{ControlCodec, FrameError};
use wire::replication::Progress;

use super::attending::Attending;
use super::{Executor, Perform};

/// The socket's name in the state folder.
const SOCKET: &str = "control.s";
/// Connections at a time; others wait.
const CONNECTIONS: usize = 16;

/// Serves for ever.
///
/// # Panics
/// Outside of an asynchronous runtime.
pub fn serve<P: Perform>(
    state_folder: PathBuf,
    executor: Executor<P>,
) -> impl Future<Output = ()> + Send {
    // At once: whoever hears that the agent has started may speak to it.
    let listening = listen(&state_folder);
    async move {
        match listening {
            Ok(listener) => accept(listener, executor).await,
            Err(error) => {
                warn!(%error, path = %state_folder.join(SOCKET).display(), "commands from this host are not heard");
                std::future::pending().await
            }
        }
    }
}

async fn accept<P: Perform>(listener: UnixListener, executor: Executor<P>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("it is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let attending = Attending::new(executor.clone());
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, attending).await {
                        debug!(%error, "a connection from this host broke");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(%error, "a connection from this host was not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

fn listen(state_folder: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = state_folder.join(SOCKET);
    // The folder is held by this process alone: what is there is a leftover.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn converse<P: Perform>(
    stream: UnixStream,
    mut attending: Attending<P>,
) -> Result<(), FrameError> {
    let mut channel = Framed::new(stream, ControlCodec::<Answered, Command>::default());
    loop {
        tokio::select! {
            command = channel.next() => match command {
                Some(command) => attending.take(command?),
                None => return Ok(()),
            },
            answered = attending.next() => channel.send(&answered).await?,
        }
    }
}

/// The agent of this host, for its own commands.
pub struct Client {
    channel: Framed<UnixStream, ControlCodec<Command, Answered>>,
}

impl Client {
    /// Reaches the agent with this state folder.
    ///
    /// # Errors
    /// [`Code::AgentNotRunning`].
    pub async fn connect(state_folder: &Path) -> Result<Self, Fault> {
        let path = state_folder.join(SOCKET);
        match UnixStream::connect(&path).await {
            Ok(stream) => Ok(Self { channel: Framed::new(stream, ControlCodec::default()) }),
            Err(error) => Err(away(format!("{}: {error}", path.display()))),
        }
    }

    /// Has a command done and waits until it is.
    ///
    /// # Errors
    /// Why it could not be done, or that the agent went away.
    pub async fn ask(
        &mut self,
        command: Command,
        mut progress: impl FnMut(Progress),
    ) -> Result<Answer, Fault> {
        self.channel.send(&command).await.map_err(|error| away(error.to_string()))?;
        loop {
            let answered = match self.channel.next().await {
                Some(Ok(answered)) => answered,
                Some(Err(error)) => return Err(away(error.to_string())),
                None => return Err(away("it ended before it answered".into())),
            };
            match answered.outcome {
                _ if answered.id != command.id => {}
                Outcome::Working { progress: Some(far) } => progress(far),
                Outcome::Working { progress: None } => {}
                Outcome::Done { answer } => return Ok(answer),
                Outcome::Failed { fault } => return Err(crate::connection::dial::refusal(fault)),
            }
        }
    }
}

fn away(cause: String) -> Fault {
    Fault::new(
        Code::AgentNotRunning,
        "reach this host's agent",
        cause,
        "Start it: systemctl start lifeboat-agent. It needs no controller for this; give the same command again then.",
    )
}
