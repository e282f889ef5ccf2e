//! What a point's configuration carries behind libvirt's description of the
//! machine: comments, which whoever does not know them passes over.
//!
//! ```text
//! <domain>…</domain>
//! <!-- lifeboat-starts-with-host-1 -->
//! <!-- lifeboat-firmware-variables-1 … -->
//! ```

const FIRST: &str = "\n<!-- lifeboat-";
const STARTS_WITH_HOST: &str = "\n<!-- lifeboat-starts-with-host-1 -->";
const END: &str = "</domain>";

/// A configuration as libvirt has it, and what is behind it.
#[must_use]
pub fn split(configuration: &str) -> (&str, &str) {
    let end = configuration.rfind(END).map_or(0, |at| at + END.len());
    let behind = configuration[end..].find(FIRST).map(|at| end + at);
    configuration.split_at(behind.unwrap_or(configuration.len()))
}

/// A configuration, as libvirt has it, of a machine that starts with its host.
#[must_use]
pub fn with_start(configuration: &str) -> String {
    format!("{configuration}{STARTS_WITH_HOST}")
}

/// Whether its machine started with its host.
#[must_use]
pub fn starts_with_host(configuration: &str) -> bool {
    split(configuration).1.contains(STARTS_WITH_HOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("../../../../tests/golden/configuration-1-starts.xml");
    const DOMAIN: &str = "<domain><title>\n<!-- lifeboat-starts-with-host-1 --></title></domain>\n";

    #[test]
    fn that_a_machine_starts_with_its_host_goes_with_its_configuration() {
        assert!(starts_with_host(GOLDEN));
        assert!(roxmltree::Document::parse(GOLDEN).is_ok());
        assert_eq!(split(GOLDEN).0, "<domain><os><nvram>/v.fd</nvram></os></domain>");
        assert_eq!(split(DOMAIN), (DOMAIN, ""), "what a user writes is no word of ours");
        assert!(!starts_with_host(DOMAIN));
        let starting = with_start(DOMAIN);
        assert!(starts_with_host(&starting));
        assert_eq!(split(&starting).0, DOMAIN);
        assert_eq!(split(""), ("", ""));
    }
}
