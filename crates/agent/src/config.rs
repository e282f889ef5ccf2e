//! Settings of the agent.
//!
//! Each key can be given as a flag (`--state-folder`), in the environment
//! (`LIFEBOAT_AGENT_STATE_FOLDER`) or in the file; the first of these that has
//! it wins, and what none has takes its default. Unknown keys are refused
//! wherever they stand.

use std::path::{Path, PathBuf};

use domain::fault::Fault;
use serde::{Deserialize, Serialize};
use service::settings::Sources;

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
    /// See [`Sources::load`].
    pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Self, Fault> {
        let sources = Sources { role: "agent", file, default_file: FILE, environment: ENVIRONMENT };
        sources.load(flags)
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
    fn the_documented_sample_is_what_the_defaults_are() {
        let sample = include_str!("../../../dist/agent.toml");
        assert_eq!(load(sample, &Flags::default()), load("", &Flags::default()));
        let all_keys: Vec<&str> = sample
            .lines()
            .filter_map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")))
            .collect();
        assert_eq!(all_keys.len(), 3, "each key is in the sample");
        load(&all_keys.join("\n"), &Flags::default()).unwrap();
    }
}
