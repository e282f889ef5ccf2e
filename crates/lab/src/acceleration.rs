//! Whether guests run on the processor itself or are emulated.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::absent::QEMU;
use crate::image::Image;

/// What runs a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceleration {
    /// The processor, by KVM.
    Kvm,
    /// QEMU's emulation.
    Emulated,
}

impl Acceleration {
    /// How long a kernel may take to boot under KVM.
    const PATIENCE: Duration = Duration::from_secs(3);

    /// Boots a kernel with KVM and believes only what it says: on nested machines
    /// the device may exist and a guest still hang for ever. The verdict is
    /// remembered until the machine boots anew.
    pub(crate) async fn probe(image: &Image) -> Result<Self> {
        if !Path::new("/dev/kvm").exists() {
            return Ok(Self::Emulated);
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .context("read the machine's boot")?;
        let remembered = image.cache().join("acceleration");
        let known = fs::read_to_string(&remembered).unwrap_or_default();
        let verdict = match known.strip_prefix(&boot) {
            Some("kvm") => return Ok(Self::Kvm),
            Some("emulated") => return Ok(Self::Emulated),
            _ => Self::try_kvm(image).await,
        };
        let word = match verdict {
            Self::Kvm => "kvm",
            Self::Emulated => "emulated",
        };
        fs::write(&remembered, format!("{boot}{word}"))
            .with_context(|| format!("write {}", remembered.display()))?;
        Ok(verdict)
    }

    async fn try_kvm(image: &Image) -> Self {
        let console = if cfg!(target_arch = "aarch64") { "ttyAMA0" } else { "ttyS0" };
        let machine = if cfg!(target_arch = "aarch64") { "virt" } else { "pc" };
        let spawned = Command::new(QEMU)
            .args(["-M", machine, "-accel", "kvm", "-cpu", "host", "-m", "160"])
            .args(["-display", "none", "-nodefaults", "-serial", "stdio", "-no-reboot"])
            .arg("-kernel")
            .arg(image.kernel())
            .args(["-append", &format!("console={console}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let Ok(mut qemu) = spawned else {
            return Self::Emulated;
        };
        let Some(output) = qemu.stdout.take() else {
            return Self::Emulated;
        };
        let mut lines = BufReader::new(output).lines();
        let spoke = timeout(Self::PATIENCE, async {
            while let Ok(Some(line)) = lines.next_line().await {
                // Without a root to mount, this is how a whole boot ends.
                if line.contains("Kernel panic") {
                    return true;
                }
            }
            false
        });
        let verdict = match spoke.await {
            Ok(true) => Self::Kvm,
            Ok(false) | Err(_) => Self::Emulated,
        };
        // Gone before a guest wants its memory, unless even this hangs.
        let _ = timeout(Self::PATIENCE, qemu.kill()).await;
        verdict
    }
}
