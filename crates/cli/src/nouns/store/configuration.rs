//! Who a stored configuration says that the machine is.

/// The names in a configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) name: Option<String>,
    pub(super) uuid: Option<String>,
}

impl Identity {
    /// Reads libvirt's domain XML; any other configuration names nobody.
    pub(super) fn of(configuration: &[u8]) -> Self {
        let text = std::str::from_utf8(configuration).unwrap_or_default();
        let Ok(document) = roxmltree::Document::parse(text) else { return Self::default() };
        let domain = document.root_element();
        if domain.tag_name().name() != "domain" {
            return Self::default();
        }
        let child = |name: &str| {
            let found = domain.children().find(|node| node.has_tag_name(name))?;
            Some(found.text()?.trim().to_owned()).filter(|text| !text.is_empty())
        };
        Self { name: child("name"), uuid: child("uuid") }
    }

    /// Whether somebody means this machine.
    pub(super) fn is(&self, reference: &str) -> bool {
        let is_name = self.name.as_deref() == Some(reference);
        is_name || self.uuid.as_deref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(reference))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_known_by_name_and_uuid_and_nothing_else_is() {
        let identity = Identity::of(
            b"<domain type='kvm'><name>web</name><uuid>4DEA22B3-1d52-d8f3</uuid>
              <devices><disk><name>vda</name></disk></devices></domain>",
        );
        assert!(identity.is("web") && identity.is("4dea22b3-1D52-d8f3") && !identity.is("vda"));
        for other in [&b"<network><name>web</name></network>"[..], b"{}", b"\xff", b""] {
            assert_eq!(Identity::of(other), Identity::default());
        }
    }
}
