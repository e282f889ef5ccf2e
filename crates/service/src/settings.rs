//! Settings, with one precedence for every role: a flag wins over the
//! environment, that over the file, and what none of them has takes its
//! default. Unknown keys are refused wherever they stand, if the role's type
//! says `deny_unknown_fields`.

use std::io;
use std::path::Path;

use domain::fault::{Code, Fault};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Where a role's settings come from, flags aside.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The role's name, for errors.
    pub role: &'static str,
    /// The file that the operator named; it must exist.
    pub file: Option<&'a Path>,
    /// The file that is read when none was named; it need not exist.
    pub default_file: &'static str,
    /// What the environment's variables begin with.
    pub environment: &'static str,
}

impl Sources<'_> {
    fn path(&self) -> &Path {
        self.file.unwrap_or(Path::new(self.default_file))
    }

    /// Reads the settings. `flags` holds those that were given, by key.
    ///
    /// # Errors
    /// [`Code::ConfigUnreadable`], [`Code::ConfigInvalid`]; the latter names
    /// the key and where it stands.
    pub fn load<T: DeserializeOwned>(&self, flags: &impl Serialize) -> Result<T, Fault> {
        let text = match std::fs::read_to_string(self.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.file.is_none() => {
                String::new()
            }
            Err(error) => {
                return Err(Fault::new(
                    Code::ConfigUnreadable,
                    format!("read the {}'s configuration {}", self.role, self.path().display()),
                    error.to_string(),
                    "Name a file that exists and that this user may read, with --config.",
                ));
            }
        };
        Figment::from(Toml::string(&text))
            .merge(Env::prefixed(self.environment))
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| self.invalid(error.to_string()))
    }

    /// The error for a setting that makes no sense.
    #[must_use]
    pub fn invalid(&self, cause: String) -> Fault {
        Fault::new(
            Code::ConfigInvalid,
            format!(
                "use the {}'s configuration ({}, {}… and flags)",
                self.role,
                self.path().display(),
                self.environment
            ),
            cause,
            "Correct or remove the key; docs/guide/configuration.md lists all keys.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(default)]
        port: u16,
        #[serde(default)]
        name: String,
    }

    fn load(text: &str, flags: &[(&str, &str)]) -> Result<Config, Fault> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sample.toml");
        std::fs::write(&file, text).unwrap();
        let sources = Sources {
            role: "sample",
            file: Some(&file),
            default_file: "/nowhere",
            environment: "LIFEBOAT_NO_SUCH_PREFIX_",
        };
        sources.load(&flags.iter().copied().collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_default_fills_the_rest() {
        assert_eq!(
            load("port = 1\nname = 'file'", &[("name", "flag")]),
            Ok(Config { port: 1, name: "flag".into() })
        );
        assert_eq!(load("", &[]), Ok(Config { port: 0, name: String::new() }));
    }

    #[test]
    fn an_error_names_the_key_and_a_named_file_must_exist() {
        for (text, key) in [("prot = 1", "prot"), ("port = 'x'", "port"), ("port = 70000", "port")]
        {
            let fault = load(text, &[]).unwrap_err();
            assert_eq!(fault.code, Code::ConfigInvalid);
            assert!(fault.cause.contains(key), "{fault}");
        }
        let missing = Sources {
            role: "sample",
            file: Some(Path::new("/nowhere/at/all")),
            default_file: "/nowhere",
            environment: "LIFEBOAT_NO_SUCH_PREFIX_",
        };
        let none = BTreeMap::<String, String>::new();
        assert_eq!(missing.load::<Config>(&none).unwrap_err().code, Code::ConfigUnreadable);
        assert!(Sources { file: None, ..missing }.load::<Config>(&none).is_ok());
    }
}
