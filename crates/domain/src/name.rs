//! Names that an operator gives to sites, clouds, hosts and tokens.

use std::fmt;
use std::str::FromStr;

/// A name: 1 to 63 characters, letters, digits, `.`, `_` and `-`, beginning
/// and ending with a letter or digit, so that it is safe in a URL, a file
/// name, a metric label and a shell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Longest name, in characters: that of a DNS label.
pub const NAME_LENGTH_MAX: usize = 63;

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAName {
    /// Nothing was given.
    #[error("a name cannot be empty")]
    Empty,
    /// Longer than [`NAME_LENGTH_MAX`].
    #[error("{name:?} has {length} characters, a name has at most {NAME_LENGTH_MAX}")]
    TooLong {
        /// What was given.
        name: String,
        /// Its length in characters.
        length: usize,
    },
    /// A character that names do not have, or not in this place.
    #[error(
        "{name:?} has {found:?} at position {position}: a name has letters, digits, '.', '_' and '-', and begins and ends with a letter or digit"
    )]
    Character {
        /// What was given.
        name: String,
        /// The offending character.
        found: char,
        /// Its position in characters, from 1.
        position: usize,
    },
}

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let length = text.chars().count();
        if length == 0 {
            return Err(NotAName::Empty);
        }
        if length > NAME_LENGTH_MAX {
            return Err(NotAName::TooLong { name: text.to_owned(), length });
        }
        let misplaced = text.chars().enumerate().find(|&(index, c)| {
            let at_an_end = index == 0 || index + 1 == length;
            !(c.is_ascii_alphanumeric() || (!at_an_end && matches!(c, '.' | '_' | '-')))
        });
        match misplaced {
            Some((index, found)) => {
                Err(NotAName::Character { name: text.to_owned(), found, position: index + 1 })
            }
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_urls_files_and_shells() {
        let verdicts: Vec<_> = ["east", "rack-7.lab_2", "", "-east", "east-", "a b", "é", "x/y"]
            .into_iter()
            .map(|text| text.parse::<Name>().is_ok())
            .collect();
        assert_eq!(verdicts, [true, true, false, false, false, false, false, false]);
        assert!("x".repeat(63).parse::<Name>().is_ok());
        assert_eq!(
            "x".repeat(64).parse::<Name>(),
            Err(NotAName::TooLong { name: "x".repeat(64), length: 64 })
        );
    }

    #[test]
    fn the_refusal_points_at_the_character() {
        assert_eq!(
            "a b".parse::<Name>().map_err(|e| e.to_string()),
            Err("\"a b\" has ' ' at position 2: a name has letters, digits, '.', '_' and '-', and begins and ends with a letter or digit".to_owned())
        );
    }
}
