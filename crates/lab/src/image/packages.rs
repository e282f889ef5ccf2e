//! Fetches packages of the distribution without installing them.

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::run::{run, run_within};

/// How long downloads may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Downloads and unpacks into `root` the newest kernel package that is made for
/// guests, and `programs` with everything that they need.
pub async fn fetch(programs: &[&str], root: &Path, scratch: &Path) -> Result<()> {
    let architecture =
        run(Command::new("dpkg").arg("--print-architecture"), "ask for the architecture").await?;
    let kernel = kernel(architecture.trim(), scratch).await?;
    let mut wanted: Vec<String> = kernel;
    wanted.extend(closure(programs, scratch).await.context(
        "find the guest's packages (apt-get update brings the lists, if there are none)",
    )?);
    let archives = scratch.join("archives");
    fs::create_dir_all(&archives).context("make a folder for packages")?;
    let mut download = Command::new("apt-get");
    download
        .current_dir(&archives)
        .args(["-q", "-o", "APT::Sandbox::User=root", "download"])
        .args(&wanted);
    run_within(PATIENCE, &mut download, "download the guest's packages").await?;
    fs::create_dir_all(root).context("make a folder to unpack into")?;
    for package in fs::read_dir(&archives).context("list the packages")? {
        let package = package.context("list the packages")?.path();
        let mut unpack = Command::new("dpkg-deb");
        run(unpack.arg("-x").arg(&package).arg(root), "unpack a package").await?;
    }
    Ok(())
}

/// The packages with the kernel and its modules. Flavours for guests come
/// first: they are smaller and boot faster.
async fn kernel(architecture: &str, scratch: &Path) -> Result<Vec<String>> {
    let flavours = match env::var("LIFEBOAT_LAB_KERNEL") {
        Ok(package) => vec![package],
        Err(_) => vec![
            format!("linux-image-cloud-{architecture}"),
            "linux-image-virtual".to_owned(),
            "linux-image-kvm".to_owned(),
            "linux-image-generic".to_owned(),
            format!("linux-image-{architecture}"),
        ],
    };
    let mut refusals = Vec::new();
    for flavour in flavours {
        match closure(&[&flavour], scratch).await {
            Ok(packages) => {
                let numbered = |package: &String| {
                    let prefixes = ["linux-image-", "linux-modules-"];
                    prefixes.iter().any(|prefix| {
                        let rest = package.strip_prefix(prefix).unwrap_or_default();
                        // Not the modules-extra, nor the flavour's own name.
                        rest.starts_with(|first: char| first.is_ascii_digit())
                            || rest.starts_with("unsigned-")
                    })
                };
                return Ok(packages.into_iter().filter(numbered).collect());
            }
            Err(error) => refusals.push(format!("{flavour}: {error:#}")),
        }
    }
    bail!("no kernel package found: {}", refusals.join("; "))
}

/// `packages` and all that they need, as NAME=VERSION, as if nothing were
/// installed here.
async fn closure(packages: &[&str], scratch: &Path) -> Result<Vec<String>> {
    let nothing = scratch.join("nothing-installed");
    fs::write(&nothing, "").context("write an empty list")?;
    let mut simulate = Command::new("apt-get");
    simulate
        .arg("-o")
        .arg(format!("Dir::State::status={}", nothing.display()))
        .args(["--simulate", "--no-install-recommends", "install"])
        .args(packages);
    let plan = run(&mut simulate, "ask apt what is needed").await?;
    let chosen = plan.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
        Some(format!("{name}={}", rest.split(' ').next()?))
    });
    Ok(chosen.collect())
}
