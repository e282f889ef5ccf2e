//! Whether a hypervisor's URI can be right, before anybody is asked.
//!
//! libvirt passes a URI that no local driver knows to its daemon, so that
//! without one a wrong URI looks like a daemon that does not run. See
//! <https://libvirt.org/drvqemu.html#connections-to-qemu-driver>.

/// Why a URI cannot be that of a QEMU hypervisor; none when it can.
#[must_use]
pub fn mistake_in(uri: &str) -> Option<String> {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Some(format!("{uri:?} is no URI"));
    };
    let driver = scheme.split('+').next().unwrap_or_default();
    if driver != "qemu" {
        return Some(format!("the driver is {driver}, and the agent works with QEMU"));
    }
    let path = rest.split('?').next().unwrap_or_default();
    let path = path.find('/').map_or("", |slash| &path[slash..]);
    match path {
        "/system" | "/session" => None,
        _ => Some(format!("QEMU is at /system or /session, not at {path:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::mistake_in;

    #[test]
    fn a_wrong_uri_is_told_from_a_daemon_that_is_away() {
        for good in [
            "qemu:///system",
            "qemu:///session",
            "qemu:///system?socket=/run/libvirt/libvirt-sock",
            "qemu+unix:///system",
            "qemu+ssh://root@kvm1/system",
        ] {
            assert_eq!(mistake_in(good), None, "{good}");
        }
        let mistakes = ["system", "test:///default", "qemu:///sytem", "qemu://"].map(mistake_in);
        assert_eq!(
            mistakes.map(Option::unwrap_or_default),
            [
                "\"system\" is no URI",
                "the driver is test, and the agent works with QEMU",
                "QEMU is at /system or /session, not at \"/sytem\"",
                "QEMU is at /system or /session, not at \"\"",
            ]
        );
    }
}
