//! Which crate may depend on which. A new arrow is a decision: it is made here.

use anyhow::{Result, bail};

use crate::metadata;

/// Crate, and those of ours that it may use outside its tests.
const ALLOWED: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("jobs", &[]),
    ("nbd", &[]),
    ("guest", &[]),
    ("service", &["domain"]),
    ("wire", &["domain"]),
    ("replica", &["domain", "nbd"]),
    ("api", &["domain"]),
    ("agent", &["domain", "nbd", "replica", "service", "wire"]),
    ("controller", &["api", "domain", "service", "wire"]),
    ("cli", &["agent", "api", "controller", "domain", "nbd", "replica", "service", "wire"]),
    ("lab", &["api", "guest"]),
    ("bench", &["agent", "domain", "nbd", "replica", "wire"]),
    ("xtask", &[]),
];

pub(crate) fn check() -> Result<()> {
    let metadata = metadata::read()?;
    let mut wrong = Vec::new();
    for package in metadata.ours() {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            wrong
                .push(format!("crate {} is not in the table of xtask/src/arrows.rs", package.name));
            continue;
        };
        let arrows = package.dependencies.iter().filter(|d| d.path.is_some() && d.kind.is_none());
        for arrow in arrows.filter(|arrow| !allowed.contains(&arrow.name.as_str())) {
            wrong.push(format!("{} may not depend on {}", package.name, arrow.name));
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}
