//! Settings of the agent.
//!
//! Each key can be given as a flag (`--state-folder`), in the environment
//! (`LIFEBOAT_AGENT_STATE_FOLDER`) or in the file; the first of these that has
//! it wins, and what none has takes its default. Unknown keys are refused
//! wherever they stand.

use std::path::{Path, PathBuf};

use domain::fault::{Code, Fault};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

/// Where the file is looked for when none is named.
pub const FILE: &str = "/etc/lifeboat/agent.toml";
/// What the variables of the environment begin with.
pub const ENVIRONMENT: &str = "LIFEBOAT_AGENT_";

/// Settings of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// libvirt's URI of the hypervisor on this host.
    #[serde(default = "default_hypervisor")]
    pub hypervisor: String,
    /// Where the agent keeps who it is; only its user may look into it.
    #[serde(default = "default_state_folder")]
    pub state_folder: PathBuf,
    /// The controller's address for agents, `HOST:PORT`; when it is not given,
    /// the one that the host was enrolled at.
    #[serde(default)]
    pub controller: Option<String>,
}

fn default_hypervisor() -> String {
    "qemu:///system".into()
}

fn default_state_folder() -> PathBuf {
    "/var/lib/lifeboat/agent".into()
}

/// The settings that were given as flags; absent ones leave the word to the
/// environment and the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, clap::Args)]
pub struct Flags {
    /// libvirt's URI of the hypervisor on this host [default: qemu:///system]
    #[arg(long, value_name = "URI")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<String>,
    /// Folder for who this host is [default: /var/lib/lifeboat/agent]
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_folder: Option<PathBuf>,
    /// The controller's address for agents [default: where the host was enrolled]
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
}

impl Config {
    /// Reads the settings. A file that is named must exist; [`FILE`] need not.
    ///
    /// # Errors
    /// [`Code::ConfigUnreadable`], [`Code::ConfigInvalid`]; the latter names
    /// the key and where it stands.
    pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Self, Fault> {
        let path = file.unwrap_or(Path::new(FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => {
                String::new()
            }
            Err(error) => {
                return Err(Fault::new(
                    Code::ConfigUnreadable,
                    format!("read the agent's configuration {}", path.display()),
                    error.to_string(),
                    "Name a file that exists and that this user may read, with --config.",
                ));
            }
        };
        Figment::from(Toml::string(&text))
            .merge(Env::prefixed(ENVIRONMENT))
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| {
                Fault::new(
                    Code::ConfigInvalid,
                    format!(
                        "use the agent's configuration ({} and {ENVIRONMENT}…)",
                        path.display()
                    ),
                    error.to_string(),
                    "Correct or remove the key; docs/guide/configuration.md lists all keys.",
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, flags: &Flags) -> Result<Config, Fault> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file), flags)
    }

    #[test]
    fn flags_win_over_the_file_and_defaults_fill_the_rest() {
        let flags = Flags { hypervisor: Some("qemu:///session".into()), ..Flags::default() };
        let config =
            load("hypervisor = 'qemu:///system'\nstate_folder = '/srv/agent'", &flags).unwrap();
        assert_eq!(config.hypervisor, "qemu:///session");
        assert_eq!(config.state_folder, Path::new("/srv/agent"));
        assert_eq!(load("", &Flags::default()).unwrap().hypervisor, "qemu:///system");
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let fault = load("hypervizor = 'qemu:///system'", &Flags::default()).unwrap_err();
        assert_eq!(fault.code, Code::ConfigInvalid);
        assert!(fault.cause.contains("hypervizor"), "{fault}");
    }

    #[test]
    fn the_documented_sample_is_what_the_defaults_are() {
        let sample = include_str!("../../../dist/agent.toml");
        assert_eq!(load(sample, &Flags::default()), load("", &Flags::default()));
        let all_keys_set: String = sample
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|l| l.contains(" = ")).unwrap_or(""))
            .fold(String::new(), |all, line| all + line + "\n");
        load(&all_keys_set, &Flags::default()).unwrap();
    }
}
