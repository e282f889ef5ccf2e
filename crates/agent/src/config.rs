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
    /// Where other agents bring what they ship, `ADDRESS:PORT`.
    #[serde(default = "default_listen")]
    pub listen: String,
    /// Where other agents reach that port, `HOST:PORT`; when it is not given,
    /// the port of `listen` at the address that the controller sees.
    #[serde(default)]
    pub peer_address: Option<String>,
    /// Where recovery points are kept.
    #[serde(default = "default_store_folder")]
    pub store_folder: PathBuf,
    /// Where QEMU keeps what guests overwrite while their disks are held still;
    /// best on a file system of its own.
    #[serde(default = "default_capture_folder")]
    pub capture_folder: PathBuf,
    /// How much that may be for one machine, in MiB.
    #[serde(default = "default_scratch_limit_mib")]
    pub scratch_limit_mib: u64,
    /// What all machines of this host may send together, in MiB a second; 0 for
    /// no limit.
    #[serde(default)]
    pub shipping_limit_mib: u64,
    /// Where the disks of machines go that are made of recovery points.
    #[serde(default = "default_recovery_folder")]
    pub recovery_folder: PathBuf,
    /// For so many seconds the controller is waited for after a start, before machines
    /// are started whose policy wants that when nobody can be asked.
    #[serde(default = "default_alone_after_seconds")]
    pub alone_after_seconds: u64,
}

fn default_listen() -> String {
    "0.0.0.0:7444".into()
}

fn default_store_folder() -> PathBuf {
    "/var/lib/lifeboat/store".into()
}

fn default_capture_folder() -> PathBuf {
    "/var/lib/lifeboat/capture".into()
}

fn default_scratch_limit_mib() -> u64 {
    8192
}

fn default_alone_after_seconds() -> u64 {
    120
}

fn default_recovery_folder() -> PathBuf {
    "/var/lib/lifeboat/recovered".into()
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
    /// Where other agents bring what they ship [default: 0.0.0.0:7444]
    #[arg(long, value_name = "ADDRESS:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Where other agents reach that port [default: as the controller sees this host]
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<String>,
    /// Folder for recovery points [default: /var/lib/lifeboat/store]
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_folder: Option<PathBuf>,
    /// Folder for what guests overwrite during a capture [default: /var/lib/lifeboat/capture]
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture_folder: Option<PathBuf>,
    /// How much that may be for one machine, in MiB [default: 8192]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scratch_limit_mib: Option<u64>,
    /// What all machines may send together, in MiB a second [default: 0, no limit]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shipping_limit_mib: Option<u64>,
    /// Folder for the disks of recovered machines [default: /var/lib/lifeboat/recovered]
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_folder: Option<PathBuf>,
    /// Seconds without the controller, after which policies say what is started [default: 120]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alone_after_seconds: Option<u64>,
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
        assert_eq!(all_keys.len(), 11, "each key is in the sample");
        load(&all_keys.join("\n"), &Flags::default()).unwrap();
    }
}
