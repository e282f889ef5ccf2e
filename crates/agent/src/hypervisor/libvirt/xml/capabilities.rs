//! `<capabilities>`: what the host and its hypervisor offer.
//! See <https://libvirt.org/formatcaps.html>.

use roxmltree::Document;
use uuid::Uuid;

use super::{XmlError, child, children, required, text};

/// What the inventory takes from the capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The hypervisor's UUID of the host.
    pub host_uuid: Option<Uuid>,
    /// The CPU architecture.
    pub architecture: String,
    /// The CPU's model, where libvirt knows it.
    pub cpu_model: Option<String>,
    /// Whether guests of the host's architecture can use KVM.
    pub kvm: bool,
}

/// Reads the capabilities.
///
/// # Errors
/// When they are not XML, or have no architecture.
pub fn parse(xml: &str) -> Result<Capabilities, XmlError> {
    let document = Document::parse(xml)?;
    let root = document.root_element();
    let host = child(root, "host")
        .ok_or(XmlError::Missing { object: "the capabilities", element: "host" })?;
    let cpu = child(host, "cpu")
        .ok_or(XmlError::Missing { object: "the capabilities", element: "cpu" })?;
    let architecture: String = required(cpu, "the capabilities", "arch")?;
    let kvm = children(root, "guest")
        .filter_map(|guest| child(guest, "arch"))
        .filter(|arch| arch.attribute("name") == Some(&architecture))
        .flat_map(|arch| children(arch, "domain"))
        .any(|domain| domain.attribute("type") == Some("kvm"));
    Ok(Capabilities {
        host_uuid: text(host, "uuid").and_then(|uuid| uuid.parse().ok()),
        cpu_model: text(cpu, "model"),
        architecture,
        kvm,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "<capabilities><host>
        <uuid>3c2b9f3e-0000-4000-8000-000000000001</uuid>
        <cpu><arch>x86_64</arch><model>Skylake-Server</model><vendor>Intel</vendor></cpu>
      </host>
      <guest><os_type>hvm</os_type><arch name='i686'><domain type='qemu'/><domain type='kvm'/></arch></guest>
      <guest><os_type>hvm</os_type><arch name='x86_64'><domain type='qemu'/></arch></guest>
    </capabilities>";

    #[test]
    fn kvm_counts_only_for_the_architecture_of_the_host() {
        let capabilities = parse(SAMPLE).unwrap();
        assert_eq!(capabilities.architecture, "x86_64");
        assert_eq!(capabilities.cpu_model.as_deref(), Some("Skylake-Server"));
        assert!(capabilities.host_uuid.is_some());
        assert!(!capabilities.kvm);
        let with_kvm = SAMPLE.replace("'x86_64'>", "'x86_64'><domain type='kvm'/>");
        assert!(parse(&with_kvm).unwrap().kvm);
    }
}
