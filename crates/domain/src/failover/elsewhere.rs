//! Whether a machine may be made at another host than the one that keeps its
//! points.

use crate::host::Reachability;

/// A host on which a machine is to be made, as far as that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether the machine's changes come from it.
    pub is_source: bool,
    /// The site of the host that keeps the points, if that is another site.
    pub other_site: Option<&'a str>,
    /// Whether its agent is there.
    pub reachability: Reachability,
    /// Whether its agent can use points that another host lends.
    pub borrows: bool,
    /// The name of the host that keeps the points, if its agent cannot lend them.
    pub cannot_lend: Option<&'a str>,
    /// Where the machine was made before by the failover that goes on, if that was
    /// at another host.
    pub made_at: Option<&'a str>,
}

/// Why a machine may not be made there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsuitable {
    /// Why.
    pub reason: String,
    /// What to do about it.
    pub advice: String,
}

/// Judges whether a machine may be made at a host.
///
/// # Errors
/// The first reason why not.
pub fn may_be_made_at(there: &Elsewhere<'_>) -> Result<(), Unsuitable> {
    let no = |reason: String, advice: String| Err(Unsuitable { reason, advice });
    let name = there.name;
    if there.is_source {
        return no(
            format!("host {name} is where the machine comes from"),
            "Choose a host of the site that its points are at: lifeboat host list.".into(),
        );
    }
    if let Some(site) = there.other_site {
        return no(
            format!("host {name} is not of the site {site}, where its points are"),
            format!("Choose a host of {site}: lifeboat host list."),
        );
    }
    if let Some(before) = there.made_at {
        return no(
            format!("it was made at host {before} by the failover that goes on"),
            format!(
                "Leave the host out, and it goes on at {before}; or choose a point as well, and it is made anew here."
            ),
        );
    }
    let old = "Upgrade the agent there, or leave the host out.";
    match there.reachability {
        Reachability::Connected { .. } => {}
        Reachability::Revoked { .. } => {
            return no(
                format!("host {name} is revoked"),
                "Choose another: lifeboat host list.".into(),
            );
        }
        Reachability::Enrolled { .. } | Reachability::NotReachable { .. } => {
            return no(
                format!("the agent of {name} is not connected"),
                "Bring it back, or choose another host: lifeboat host list.".into(),
            );
        }
    }
    if !there.borrows {
        return no(
            format!("the agent of {name} is too old to use points of another host"),
            old.into(),
        );
    }
    if let Some(keeper) = there.cannot_lend {
        return no(format!("the agent of {keeper} is too old to lend its points"), old.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;

    const THEN: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn good() -> Elsewhere<'static> {
        Elsewhere {
            name: "kvm3",
            is_source: false,
            other_site: None,
            reachability: Reachability::Connected { since: THEN },
            borrows: true,
            cannot_lend: None,
            made_at: None,
        }
    }

    #[test]
    fn each_obstacle_is_told_with_a_way_out() {
        assert_eq!(may_be_made_at(&good()), Ok(()));
        let away = Reachability::NotReachable { since: THEN };
        let revoked = Reachability::Revoked { since: THEN };
        for (bad, said) in [
            (Elsewhere { reachability: revoked, ..good() }, "revoked"),
            (Elsewhere { is_source: true, ..good() }, "comes from"),
            (Elsewhere { other_site: Some("west"), ..good() }, "not of the site west"),
            (Elsewhere { made_at: Some("kvm4"), ..good() }, "kvm4"),
            (Elsewhere { reachability: away, ..good() }, "not connected"),
            (Elsewhere { borrows: false, ..good() }, "kvm3 is too old"),
            (Elsewhere { cannot_lend: Some("kvm2"), ..good() }, "kvm2 is too old"),
        ] {
            let unsuitable = may_be_made_at(&bad).unwrap_err();
            assert!(unsuitable.reason.contains(said), "{unsuitable:?}");
            assert!(unsuitable.advice.ends_with('.'), "{unsuitable:?}");
        }
    }
}
