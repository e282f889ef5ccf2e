//! Settings of the controller.
//!
//! Each key can be given as a flag (`--data-folder`), in the environment
//! (`LIFEBOAT_CONTROLLER_DATA_FOLDER`) or in the file; the first of these that
//! has it wins, and what none has takes its default. Unknown keys are refused
//! wherever they stand.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::fault::Fault;
use serde::{Deserialize, Serialize};
use service::settings::Sources;

/// Where the file is looked for when none is named.
pub const FILE: &str = "/etc/lifeboat/controller.toml";
/// What the variables of the environment begin with.
pub const ENVIRONMENT: &str = "LIFEBOAT_CONTROLLER_";

/// Shortest and longest life of an agent's certificate.
const CERTIFICATE_LIFE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(10 * 366 * 24 * 3600);

/// Settings of the controller.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Holds the database and the certificate authority; only the controller's
    /// user may look into it.
    #[serde(default = "default_data_folder")]
    pub data_folder: PathBuf,
    /// Where the REST API is served, over HTTPS.
    #[serde(default = "default_api_address")]
    pub api_address: SocketAddr,
    /// Where agents connect.
    #[serde(default = "default_agent_address")]
    pub agent_address: SocketAddr,
    /// Further names and addresses by which clients reach the API; they go
    /// into its certificate beside this host's own.
    #[serde(default)]
    pub public_names: Vec<String>,
    /// How long an agent's certificate lives; it is renewed after two thirds.
    #[serde(default = "default_certificate_life", with = "humantime_serde")]
    pub certificate_life: Duration,
}

fn default_data_folder() -> PathBuf {
    "/var/lib/lifeboat/controller".into()
}

fn default_api_address() -> SocketAddr {
    ([0, 0, 0, 0], 7442).into()
}

fn default_agent_address() -> SocketAddr {
    ([0, 0, 0, 0], 7443).into()
}

fn default_certificate_life() -> Duration {
    Duration::from_secs(90 * 24 * 3600)
}

/// The settings that were given as flags; absent ones leave the word to the
/// environment and the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, clap::Args)]
pub struct Flags {
    /// Folder for the database and the certificate authority [default: /var/lib/lifeboat/controller]
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_folder: Option<PathBuf>,
    /// Where the REST API is served [default: 0.0.0.0:7442]
    #[arg(long, value_name = "ADDRESS:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_address: Option<String>,
    /// Where agents connect [default: 0.0.0.0:7443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_address: Option<String>,
    /// A further name or address by which clients reach the API; may be repeated
    #[arg(long = "public-name", value_name = "NAME")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub public_names: Vec<String>,
    /// How long an agent's certificate lives, such as 90d
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_life: Option<String>,
}

impl Config {
    /// Reads the settings. A file that is named must exist; [`FILE`] need not.
    ///
    /// # Errors
    /// See [`Sources::load`]; besides, settings that contradict one another.
    pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Self, Fault> {
        let sources =
            Sources { role: "controller", file, default_file: FILE, environment: ENVIRONMENT };
        let config: Self = sources.load(flags)?;
        if !CERTIFICATE_LIFE.contains(&config.certificate_life) {
            return Err(sources.invalid("certificate_life must be between 10s and 10years".into()));
        }
        if config.api_address == config.agent_address && config.api_address.port() != 0 {
            return Err(sources.invalid("api_address and agent_address are the same".into()));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::fault::Code;

    fn load(text: &str, flags: &Flags) -> Result<Config, Fault> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("controller.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file), flags)
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let cause = |text: &str| {
            let fault = load(text, &Flags::default()).unwrap_err();
            assert_eq!(fault.code, Code::ConfigInvalid);
            fault.cause
        };
        assert!(cause("api_address = 'somewhere'").contains("api_address"));
        assert!(cause("certificate_life = '1s'").contains("certificate_life"));
        assert!(cause("api_address = '0.0.0.0:7443'").contains("are the same"));
    }

    #[test]
    fn the_documented_sample_is_what_the_defaults_are() {
        let sample = include_str!("../../../dist/controller.toml");
        assert_eq!(load(sample, &Flags::default()), load("", &Flags::default()));
        let all_keys: Vec<&str> = sample
            .lines()
            .filter_map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")))
            .collect();
        assert_eq!(all_keys.len(), 5, "each key is in the sample");
        load(&all_keys.join("\n"), &Flags::default()).unwrap();
    }
}
