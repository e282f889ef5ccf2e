//! Licences of everything that is linked: ours is Apache-2.0, and what we
//! build on must let us be.

use anyhow::{Context as _, Result, bail};
use spdx::{Expression, LicenseReq};

use crate::metadata::{self, Package};

const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crate, licence, and why it may be used all the same.
const EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "virt-sys",
    "LGPL-2.1",
    "declarations of libvirt's functions; libvirt itself is linked dynamically, as the LGPL asks",
)];

pub(crate) fn check() -> Result<()> {
    let metadata = metadata::read()?;
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        if !is_allowed(package).with_context(|| format!("licence of {}", package.name))? {
            let licence = package.license.as_deref().unwrap_or("none");
            wrong.push(format!("{} {}: {licence}", package.name, package.version));
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        bail!("licences that are not allowed:\n{}", wrong.join("\n"))
    }
}

fn is_allowed(package: &Package) -> Result<bool> {
    let Some(licence) = &package.license else { return Ok(false) };
    if EXCEPTIONS.iter().any(|(name, excepted, _)| package.name == *name && licence == excepted) {
        return Ok(true);
    }
    // The form that crates used before SPDX expressions.
    let expression = Expression::parse(&licence.replace('/', " OR "))?;
    Ok(expression.evaluate(|requirement: &LicenseReq| {
        requirement.license.id().is_some_and(|id| ALLOWED.contains(&id.name))
    }))
}
