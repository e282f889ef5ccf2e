//! A site's own libvirt: its configuration, daemons, networks and pools.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use uuid::Uuid;

use crate::machine::PORTS;
use crate::place::Place;
use crate::process::Process;
use crate::run::{run, wait_for};

/// How long a daemon may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// Folders that each site has of its own. The serial ports' are made at both
/// sites, so that a machine can be started at the one that it was not made at.
pub(crate) const FOLDERS: [&str; 9] = [
    "/etc/libvirt",
    "/etc/lifeboat",
    "/var/cache/libvirt",
    "/var/lib/libvirt",
    "/var/lib/libvirt/images",
    "/var/lib/lifeboat",
    "/var/log/libvirt",
    PORTS,
    "/var/log/lifeboat",
];

/// The running daemons of a site.
#[derive(Debug)]
pub(crate) struct Daemons {
    pub libvirtd: Process,
    pub virtlogd: Process,
}

/// A network that a site's libvirt makes: a bridge, with DHCP for guests.
#[derive(Debug, Clone)]
pub struct Network {
    name: String,
    gateway: Ipv4Addr,
    reach: Reach,
}

#[derive(Debug, Clone, Copy)]
enum Reach {
    Isolated,
    Nat,
}

impl Network {
    /// A network of its own: guests reach one another and the host at
    /// `gateway`, a /24.
    #[must_use]
    pub fn isolated(name: &str, gateway: Ipv4Addr) -> Self {
        Self { name: name.to_owned(), gateway, reach: Reach::Isolated }
    }

    /// As [`isolated`](Self::isolated), and guests reach the WAN under the
    /// site's address.
    #[must_use]
    pub fn nat(name: &str, gateway: Ipv4Addr) -> Self {
        let reach = Reach::Nat;
        Self { reach, ..Self::isolated(name, gateway) }
    }

    fn xml(&self) -> String {
        let [a, b, c, _] = self.gateway.octets();
        let forward = match self.reach {
            Reach::Isolated => "",
            Reach::Nat => "<forward mode='nat'/>",
        };
        format!(
            "<network><name>{}</name>{forward}<bridge stp='off' delay='0'/>\
             <ip address='{}' netmask='255.255.255.0'><dhcp>\
             <range start='{a}.{b}.{c}.100' end='{a}.{b}.{c}.200'/></dhcp></ip></network>",
            self.name, self.gateway
        )
    }
}

/// Writes the configuration of a new site.
pub(crate) fn configure(site: &Place) -> Result<()> {
    let host = Uuid::new_v4();
    let files = [
        (
            "/etc/libvirt/libvirtd.conf",
            format!(
                "host_uuid = \"{host}\"\n\
                 auth_unix_rw = \"none\"\n\
                 log_outputs = \"2:file:/var/log/libvirt/libvirtd.log\"\n"
            ),
        ),
        // No control groups: two sites would meet in them. No AppArmor or
        // SELinux: profiles would be written on the host.
        (
            "/etc/libvirt/qemu.conf",
            "security_driver = \"none\"\ncgroup_controllers = []\n".to_owned(),
        ),
        // A guest's second serial port must keep every line it ever said.
        ("/etc/libvirt/virtlogd.conf", "max_size = 0\n".to_owned()),
        ("/etc/machine-id", format!("{}\n", host.simple())),
        ("/etc/hostname", format!("{}\n", site.name())),
    ];
    for (inside, text) in files {
        let path = site.outside(inside);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Starts both daemons and waits until libvirt answers.
pub(crate) async fn start(site: &Place) -> Result<Daemons> {
    let virtlogd = site.spawn("virtlogd", &mut site.command("virtlogd")).await?;
    let socket = site.outside("/run/libvirt/virtlogd-sock");
    wait_for("start virtlogd", PATIENCE, async || Ok(socket.exists().then_some(()))).await?;
    let libvirtd = start_libvirtd(site).await?;
    Ok(Daemons { libvirtd, virtlogd })
}

/// Starts libvirtd and waits until it answers.
pub(crate) async fn start_libvirtd(site: &Place) -> Result<Process> {
    let socket = site.outside("/run/libvirt/libvirt-sock");
    // One that was killed left its socket behind.
    let _ = fs::remove_file(&socket);
    let mut libvirtd = site.spawn("libvirtd", &mut site.command("libvirtd")).await?;
    wait_for("start libvirtd", PATIENCE, async || {
        if !libvirtd.is_running()? {
            anyhow::bail!("libvirtd ended: {}", libvirtd.log()?.trim());
        }
        Ok(socket.exists().then_some(()))
    })
    .await?;
    run(site.command("virsh").args(["--quiet", "uri"]), "ask libvirt").await?;
    Ok(libvirtd)
}

/// Defines and starts a network, now and whenever the site has power.
pub(crate) async fn add_network(site: &Place, network: &Network) -> Result<()> {
    let file = site.outside(format!("/run/{}.network.xml", network.name));
    fs::write(&file, network.xml()).with_context(|| format!("write {}", file.display()))?;
    let name = network.name.as_str();
    virsh(site, &["net-define", &file.to_string_lossy()]).await?;
    virsh(site, &["net-autostart", name]).await?;
    virsh(site, &["net-start", name]).await.map(drop)
}

/// Defines and starts a pool on the folder `inside` the site, now and whenever
/// the site has power.
pub(crate) async fn add_pool(site: &Place, name: &str, inside: &str) -> Result<()> {
    virsh(site, &["pool-define-as", name, "dir", "--target", inside]).await?;
    virsh(site, &["pool-build", name]).await?;
    virsh(site, &["pool-autostart", name]).await?;
    virsh(site, &["pool-start", name]).await.map(drop)
}

/// Runs virsh at the site and returns what it printed.
pub(crate) async fn virsh(site: &Place, words: &[&str]) -> Result<String> {
    let mut command = site.command("virsh");
    command.args(["--quiet", "--connect", "qemu:///system"]).args(words);
    run(&mut command, site.name()).await
}
