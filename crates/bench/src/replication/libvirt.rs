//! A libvirt of our own, with machines whose disks change at our word.
//!
//! It sees folders of the workplace in the place of the host's, and its
//! processes end with us: a first process of namespaces that dies with us takes
//! them along. The host's own libvirt does not notice.
//!
//! Machines are started and held before their first instruction: what is written
//! to their disks is written by their QEMU (`qemu-io` in its monitor), through
//! the same dirty bitmaps as a guest's writes.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{machine::BLOCK, target::machine};
use crate::{
    content::{Noise, scattered},
    image::Image,
    process::{Server, has, output, program},
    workplace::Workplace,
};

/// Folders that libvirt finds in their place.
const FOLDERS: [(&str, &str); 5] = [
    ("etc", "/etc/libvirt"),
    ("run", "/run/libvirt"),
    ("lib", "/var/lib/libvirt"),
    ("cache", "/var/cache/libvirt"),
    ("log", "/var/log/libvirt"),
];
const PROGRAMS: [&str; 5] = ["libvirtd", "virsh", "unshare", "qemu-img", "qemu-system-x86_64"];

/// Our libvirt, until it is dropped.
pub(crate) struct Libvirt {
    folder: PathBuf,
    uri: String,
    _server: Server,
}

impl Libvirt {
    /// Why there can be none; nothing if there can.
    pub(crate) fn lacking() -> Option<String> {
        if !nix::unistd::geteuid().is_root() {
            return Some("it takes root to have a libvirt of our own".to_owned());
        }
        let absent: Vec<&str> = PROGRAMS.into_iter().filter(|name| !has(name)).collect();
        (!absent.is_empty()).then(|| format!("{} not installed", absent.join(", ")))
    }

    pub(crate) fn start(place: &Workplace) -> Result<Self> {
        let folder = place.path("l");
        for (ours, _) in FOLDERS {
            fs::create_dir_all(folder.join(ours))?;
        }
        let socket = folder.join("run/libvirt-sock");
        fs::write(
            folder.join("etc/libvirtd.conf"),
            format!(
                "unix_sock_dir = \"{}\"\nauth_unix_rw = \"none\"\nlog_outputs = \"3:file:{}\"\n\
                 host_uuid = \"{}\"\n",
                folder.join("run").display(),
                folder.join("libvirtd.log").display(),
                uuid::Uuid::new_v4(),
            ),
        )?;
        fs::write(
            folder.join("etc/qemu.conf"),
            "security_driver = \"none\"\ncgroup_controllers = []\nuser = \"root\"\n\
             group = \"root\"\nstdio_handler = \"file\"\nnamespaces = []\nremember_owner = 0\n",
        )?;
        let mounts = FOLDERS.map(|(ours, theirs)| {
            format!(
                "mkdir -p {theirs} && mount --bind '{}' {theirs} && ",
                folder.join(ours).display()
            )
        });
        let script =
            format!("{}exec libvirtd --config /etc/libvirt/libvirtd.conf", mounts.concat());
        let mut command = program("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["--propagation", "private", "sh", "-c", &script]);
        let server = Server::start(&mut command, &socket)?;
        let uri = format!("qemu:///system?socket={}", socket.display());
        Ok(Self { folder, uri, _server: server })
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Starts the machine of this number, whose qcow2 disk has the first `size`
    /// bytes of the image.
    pub(crate) fn boot(&self, number: u64, image: &Image, size: u64) -> Result<Machine<'_>> {
        let name = format!("machine-{number}");
        let disk = self.folder.join(format!("{name}.qcow2"));
        output(
            program("qemu-img")
                .args(["convert", "-q", "-O", "qcow2", "--image-opts"])
                .arg(format!("driver=raw,size={size},file.filename={}", image.path().display()))
                .arg(&disk),
        )?;
        let description = format!(
            "<domain type='qemu'><name>{name}</name><uuid>{}</uuid><memory unit='MiB'>64</memory>\
             <os><type arch='x86_64'>hvm</type></os><devices><disk type='file' device='disk'>\
             <driver name='qemu' type='qcow2'/><source file='{}'/><target dev='vda' bus='virtio'/>\
             </disk><memballoon model='none'/></devices></domain>",
            machine(number),
            disk.display(),
        );
        let file = self.folder.join(format!("{name}.xml"));
        fs::write(&file, description)?;
        output(self.virsh().arg("define").arg(&file))?;
        output(self.virsh().args(["start", "--paused", &name]))?;
        Ok(Machine { libvirt: self, name, size, written: 0 })
    }

    fn virsh(&self) -> std::process::Command {
        let mut command = program("virsh");
        command.args(["--quiet", "--connect", &self.uri]);
        command
    }
}

/// A machine of ours.
pub(crate) struct Machine<'a> {
    libvirt: &'a Libvirt,
    name: String,
    size: u64,
    /// Blocks so far: others come next.
    written: u64,
}

impl Machine<'_> {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Overwrites `count` blocks of 64 KiB, wherever, with blocks of the image
    /// that are not zero. Machines of the same size are treated the same.
    pub(crate) fn overwrite(&mut self, image: &Image, count: u64) -> Result<()> {
        let folder = self.libvirt.folder.join("content");
        fs::create_dir_all(&folder)?;
        let source = File::open(image.path())?;
        let mut noise = Noise::new(self.written + 1);
        let mut bytes = vec![0; BLOCK as usize];
        let mut commands = String::new();
        for number in 0..count {
            let block = scattered(self.written, self.size / BLOCK);
            self.written += 1;
            // Of a hundred places one will do: most are not zero.
            for _ in 0..100 {
                source.read_exact_at(&mut bytes, noise.below(image.size() / BLOCK) * BLOCK)?;
                if bytes.iter().any(|byte| *byte != 0) {
                    break;
                }
            }
            let file = folder.join(number.to_string());
            fs::write(&file, &bytes)?;
            commands.push_str(&self.monitor(&file, block * BLOCK));
        }
        let script = folder.join("commands");
        fs::write(&script, commands)?;
        let mut virsh = self.libvirt.virsh();
        let answer = virsh.stdin(File::open(&script)?).output().context("run virsh")?;
        // It repeats what it reads behind its prompt; what else it says is wrong.
        let told = String::from_utf8_lossy(&answer.stdout);
        let wrong = told.lines().find(|line| !line.is_empty() && !line.starts_with("virsh #"));
        ensure!(wrong.is_none(), "write to {}: {}", self.name, wrong.unwrap_or_default());
        fs::remove_dir_all(&folder)?;
        Ok(())
    }

    fn monitor(&self, file: &Path, offset: u64) -> String {
        format!(
            "qemu-monitor-command {} --hmp 'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend \
             \"write -q -s {} {offset} {BLOCK}\"'\n",
            self.name,
            file.display()
        )
    }
}
