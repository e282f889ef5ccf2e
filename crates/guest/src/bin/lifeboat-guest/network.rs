//! Gives every interface the address it was told to have.

use std::env;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use guest::parameters::Address;

use crate::init;

/// Configures all interfaces, then stays for as long as DHCP clients run.
pub fn run() -> Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    let mut clients = Vec::new();
    for interface in init::parameters()?.interfaces {
        // An interface whose hardware address was changed stays as it is.
        let Some(name) = by_mac(&interface.mac) else {
            eprintln!("guest: no interface has the address {}", interface.mac);
            continue;
        };
        ip(&["link", "set", &name, "up"])?;
        match &interface.address {
            Address::Dhcp => clients.push(
                Command::new("/bin/busybox")
                    .args(["udhcpc", "-f", "-s", "/bin/dhcp-event", "-t", "5", "-T", "1"])
                    .args(["-A", "2", "-i", &name])
                    .spawn()
                    .context("start the DHCP client")?,
            ),
            Address::Static { address, gateway } => {
                ip(&["address", "replace", address, "dev", &name])?;
                if let Some(gateway) = gateway {
                    ip(&["route", "replace", "default", "via", gateway])?;
                }
            }
        }
    }
    for mut client in clients {
        client.wait().context("wait for the DHCP client")?;
    }
    Ok(())
}

/// What udhcpc calls when something happens to a lease.
pub fn dhcp_event(event: &str) -> Result<()> {
    let interface = env::var("interface").context("read the interface's name")?;
    match event {
        "deconfig" => ip(&["address", "flush", "dev", &interface]),
        "bound" | "renew" => {
            let address = env::var("ip").context("read the lease's address")?;
            let prefix = env::var("mask").unwrap_or_else(|_| "24".to_owned());
            let address = format!("{address}/{prefix}");
            ip(&["address", "replace", &address, "dev", &interface])?;
            if let Ok(router) = env::var("router") {
                let first = router.split(' ').next().unwrap_or_default();
                ip(&["route", "replace", "default", "via", first])?;
            }
            if let Ok(servers) = env::var("dns") {
                let lines: String =
                    servers.split(' ').map(|server| format!("nameserver {server}\n")).collect();
                fs::write("/etc/resolv.conf", lines).context("write the name servers")?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn by_mac(mac: &str) -> Option<String> {
    fs::read_dir("/sys/class/net").ok()?.flatten().find_map(|entry| {
        let address = fs::read_to_string(entry.path().join("address")).ok()?;
        (address.trim() == mac).then(|| entry.file_name().into_string().ok())?
    })
}

fn ip(words: &[&str]) -> Result<()> {
    let mut command = Command::new("/bin/busybox");
    let output = command.arg("ip").args(words).output().context("run ip")?;
    if !output.status.success() {
        bail!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
