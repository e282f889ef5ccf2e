//! The variables of a machine's UEFI firmware, as a point carries them
//! [behind](super::behind) libvirt's description of the machine.
//!
//! ```text
//! <!-- lifeboat-firmware-variables-1 BASE64-OF-ZSTD -->
//! <!-- lifeboat-firmware-variables-1 missing: WHY -->
//! ```

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roxmltree::Document;

use super::behind::split;
use super::{XmlError, child};

const BEGIN: &str = "\n<!-- lifeboat-firmware-variables-1 ";
const END: &str = " -->";
const MISSING: &str = "missing: ";
/// The most bytes of variables: flash for them has 64 KiB to 528 KiB.
pub const MAX: usize = 4 << 20;
/// The most that they may add to a configuration, in bytes: it has 1 MiB in all.
const ENCODED_MAX: usize = 512 << 10;
const LEVEL: i32 = 3;

/// What a configuration carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variables {
    /// These, as they were in the file.
    Carried(Vec<u8>),
    /// They could not be read, or make no sense, and why.
    Missing(String),
    /// Nothing is said of any.
    None,
}

/// Where the variables of a machine are, if it has any in a file.
///
/// # Errors
/// When the description is no XML.
pub fn file_of(xml: &str) -> Result<Option<PathBuf>, XmlError> {
    let document = Document::parse(xml)?;
    let nvram = child(document.root_element(), "os").and_then(|os| child(os, "nvram"));
    let Some(nvram) = nvram else { return Ok(None) };
    let told = nvram.text().map(str::trim).filter(|text| !text.is_empty());
    let source = child(nvram, "source").and_then(|source| source.attribute("file"));
    Ok(source.or(told).map(PathBuf::from))
}

/// A configuration with the variables, or with the reason why they are missing.
#[must_use]
pub fn with(configuration: &str, variables: Result<&[u8], &str>) -> String {
    let encoded = match variables {
        Ok(bytes) if bytes.len() > MAX => Err(format!("{} bytes are too many", bytes.len())),
        Ok(bytes) => zstd::bulk::compress(bytes, LEVEL)
            .map(|packed| STANDARD.encode(packed))
            .map_err(|error| error.to_string()),
        Err(why) => Err(why.to_owned()),
    };
    let said = match encoded {
        Ok(text) if text.len() > ENCODED_MAX => format!("{MISSING}they take too much room"),
        Ok(text) => text,
        // Two dashes would end the comment.
        Err(why) => format!("{MISSING}{}", why.replace("--", "- -")),
    };
    format!("{configuration}{BEGIN}{said}{END}")
}

/// What a configuration carries.
#[must_use]
pub fn of(configuration: &str) -> Variables {
    let (_, behind) = split(configuration);
    let said = behind.split_once(BEGIN).and_then(|(_, said)| said.split_once(END));
    let Some((said, _)) = said else { return Variables::None };
    if let Some(why) = said.strip_prefix(MISSING) {
        return Variables::Missing(why.to_owned());
    }
    let packed = STANDARD.decode(said).map_err(|error| error.to_string());
    let unpacked = packed
        .and_then(|packed| zstd::bulk::decompress(&packed, MAX).map_err(|error| error.to_string()));
    unpacked.map_or_else(Variables::Missing, Variables::Carried)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("../../../../tests/golden/configuration-1.xml");
    const DOMAIN: &str = "<domain><os><nvram>/v.fd</nvram></os></domain>";

    #[test]
    fn variables_go_with_a_configuration_and_come_back() {
        assert_eq!(of(GOLDEN.trim_end()), Variables::Carried(b"variables".to_vec()));
        assert_eq!(split(GOLDEN.trim_end()).0, DOMAIN);
        let starts = include_str!("../../../../tests/golden/configuration-1-starts.xml");
        assert_eq!(of(starts), Variables::Carried(b"variables".to_vec()));
        let flash = [vec![7; 1000], vec![0xff; 540_000]].concat();
        let carried = with(DOMAIN, Ok(&flash));
        assert!(carried.len() < 2000, "{}", carried.len());
        assert!(Document::parse(&carried).is_ok());
        assert_eq!(of(&carried), Variables::Carried(flash));
        assert_eq!(of(DOMAIN), Variables::None);
    }

    #[test]
    fn what_cannot_be_carried_says_why() {
        let carried = with(DOMAIN, Err("permission denied -- for now"));
        assert!(Document::parse(&carried).is_ok());
        assert_eq!(of(&carried), Variables::Missing("permission denied - - for now".into()));
        let too_many = with(DOMAIN, Ok(&vec![0; MAX + 1]));
        assert!(matches!(of(&too_many), Variables::Missing(why) if why.contains("too many")));
        let noise = format!("{DOMAIN}{BEGIN}%{END}");
        assert!(matches!(of(&noise), Variables::Missing(_)));
    }

    #[test]
    fn their_file_is_found_however_it_is_told() {
        let of = |inside: &str| file_of(&format!("<domain><os>{inside}</os></domain>")).unwrap();
        assert_eq!(of("<nvram template='/t.fd'> /v.fd </nvram>"), Some("/v.fd".into()));
        assert_eq!(of("<nvram type='file'><source file='/v.fd'/></nvram>"), Some("/v.fd".into()));
        assert_eq!(of("<nvram type='network'><source protocol='nbd'/></nvram>"), None);
        assert_eq!(of("<boot dev='hd'/>"), None);
    }
}
