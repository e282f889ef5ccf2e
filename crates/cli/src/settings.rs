//! Which controller to talk to, and how: flags win over the environment, that
//! over `client.toml`. A token is never given as a flag, where other users of
//! the machine could see it.

use std::path::PathBuf;

use domain::fault::{Code, Fault};
use serde::{Deserialize, Serialize};
use service::folder::PrivateFolder;

const FILE: &str = "client.toml";

/// Where the controller is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Connection {
    /// The controller's API, such as https://controller.example:7442
    #[arg(long, global = true, env = "LIFEBOAT_URL", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// File with the certificate of the controller's authority, PEM
    #[arg(long, global = true, env = "LIFEBOAT_AUTHORITY", value_name = "FILE")]
    pub(crate) authority: Option<PathBuf>,
    /// The token
    #[arg(skip = std::env::var("LIFEBOAT_TOKEN").ok().map(Token))]
    pub(crate) token: Option<Token>,
}

/// A token, which `Debug` does not show.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Token(pub(crate) String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// The client's file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientFile {
    pub(crate) url: Option<String>,
    pub(crate) token: Option<Token>,
    /// The certificate itself, PEM.
    pub(crate) authority: Option<String>,
}

/// All that is needed to talk to a controller.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) url: String,
    pub(crate) token: Option<Token>,
    pub(crate) authority: String,
}

/// The folder of the client's file, by the XDG base directory rules.
fn folder() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let base = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty());
    Some(base.map(PathBuf::from).or_else(home)?.join("lifeboat"))
}

/// Where the client's file is.
pub(crate) fn file() -> Option<PathBuf> {
    Some(folder()?.join(FILE))
}

fn not_configured(cause: String) -> Fault {
    Fault::new(
        Code::ClientNotConfigured,
        "find the controller",
        cause,
        "On the controller itself run: lifeboat controller admin-token --save. Elsewhere set LIFEBOAT_URL, LIFEBOAT_TOKEN and LIFEBOAT_AUTHORITY.",
    )
}

impl Connection {
    /// Puts together what flags, environment and file say.
    pub(crate) fn resolve(&self) -> Result<Resolved, Fault> {
        let file = read()?;
        let url = self.url.clone().or(file.url);
        let url = url.ok_or_else(|| not_configured("no URL is given".into()))?;
        let authority = match &self.authority {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| not_configured(format!("read {}: {error}", path.display())))?,
            None => file.authority.ok_or_else(|| {
                not_configured("no certificate of the controller's authority is given".into())
            })?,
        };
        let token = self.token.clone().or(file.token);
        Ok(Resolved { url: url.trim_end_matches('/').to_owned(), token, authority })
    }
}

fn read() -> Result<ClientFile, Fault> {
    let Some(path) = file() else { return Ok(ClientFile::default()) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(not_configured(format!("read {}: {error}", path.display()))),
    };
    toml::from_str(&text)
        .map_err(|error| not_configured(format!("{}: {}", path.display(), error.message())))
}

/// Keeps the client's file, readable by this user only. Returns where it is.
pub(crate) fn save(content: &ClientFile) -> Result<PathBuf, Fault> {
    let folder = folder().ok_or_else(|| not_configured("there is no home folder".into()))?;
    let private = PrivateFolder::open("client", &folder)?;
    let text = toml::to_string(content).expect("the file's form is plain");
    private.write(FILE, text.as_bytes()).map_err(|error| {
        Fault::new(
            Code::DataFolderUnusable,
            format!("write {}", folder.join(FILE).display()),
            error.to_string(),
            "Make the folder writable, or set LIFEBOAT_URL, LIFEBOAT_TOKEN and LIFEBOAT_AUTHORITY instead.",
        )
    })?;
    Ok(folder.join(FILE))
}
