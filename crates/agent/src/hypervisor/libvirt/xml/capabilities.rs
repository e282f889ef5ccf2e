//! `<capabilities>`: what the host and its hypervisor offer.
//! See <https://libvirt.org/formatcaps.html>.

use std::collections::BTreeSet;

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
    /// Kinds of machines that guests of the host's architecture can be, such as
    /// `pc-q35-9.0` and `q35`.
    pub machine_types: BTreeSet<String>,
    /// Whom QEMU runs as, `USER:GROUP`: names, or numbers behind a `+`.
    pub qemu_user: Option<String>,
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
    let own: Vec<_> = children(root, "guest")
        .filter_map(|guest| child(guest, "arch"))
        .filter(|arch| arch.attribute("name") == Some(&architecture))
        .collect();
    let domains = || own.iter().flat_map(|arch| children(*arch, "domain"));
    let kvm = domains().any(|domain| domain.attribute("type") == Some("kvm"));
    let places = own.iter().copied().chain(domains());
    let machine_types = places
        .flat_map(|place| children(place, "machine"))
        .filter_map(|machine| machine.text())
        .map(|name| name.trim().to_owned())
        .collect();
    let dac =
        children(host, "secmodel").find(|model| text(*model, "model").as_deref() == Some("dac"));
    let qemu_user = dac.and_then(|dac| {
        let labels = || children(dac, "baselabel");
        let of_kind = |kind| labels().find(|label| label.attribute("type") == Some(kind));
        let label = of_kind("kvm").or_else(|| of_kind("qemu"))?;
        Some(label.text()?.trim().to_owned())
    });
    Ok(Capabilities {
        host_uuid: text(host, "uuid").and_then(|uuid| uuid.parse().ok()),
        cpu_model: text(cpu, "model"),
        architecture,
        kvm,
        machine_types,
        qemu_user,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "<capabilities><host>
        <uuid>3c2b9f3e-0000-4000-8000-000000000001</uuid>
        <cpu><arch>x86_64</arch><model>Skylake-Server</model><vendor>Intel</vendor></cpu>
        <secmodel><model>none</model></secmodel>
        <secmodel><model>dac</model><doi>0</doi>
          <baselabel type='kvm'>+64055:+108</baselabel></secmodel>
      </host>
      <guest><os_type>hvm</os_type><arch name='i686'><domain type='qemu'/><domain type='kvm'/></arch></guest>
      <guest><os_type>hvm</os_type><arch name='x86_64'>
        <machine canonical='pc-q35-9.0'>q35</machine><machine>pc-q35-9.0</machine>
        <domain type='qemu'/></arch></guest>
    </capabilities>";

    #[test]
    fn kvm_counts_only_for_the_architecture_of_the_host() {
        let capabilities = parse(SAMPLE).unwrap();
        assert_eq!(capabilities.architecture, "x86_64");
        assert_eq!(capabilities.cpu_model.as_deref(), Some("Skylake-Server"));
        assert!(capabilities.host_uuid.is_some());
        assert!(!capabilities.kvm);
        assert_eq!(capabilities.qemu_user.as_deref(), Some("+64055:+108"));
        assert_eq!(
            capabilities.machine_types.into_iter().collect::<Vec<_>>(),
            ["pc-q35-9.0", "q35"]
        );
        let with_kvm = SAMPLE.replace("'x86_64'>", "'x86_64'><domain type='kvm'/>");
        assert!(parse(&with_kvm).unwrap().kvm);
    }
}
