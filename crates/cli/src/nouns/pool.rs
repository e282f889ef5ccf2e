//! `lifeboat pool`.

use api::List;
use api::pool::Pool;
use domain::units::ByteCount;

use domain::units::utc;

use crate::client::{Session, narrow, segment};
use crate::failure::Failure;
use crate::nouns::Look;
use crate::output::{self, or_dash, yes};

pub(crate) async fn run(look: Look, session: &Session) -> Result<(), Failure> {
    match look {
        Look::List { site, host } => {
            let path = format!("/pools{}", narrow(site.as_deref(), host.as_deref()));
            let pools: List<Pool> = session.get(&path).await?;
            output::list(
                session.json,
                &pools,
                "There are no storage pools.",
                &["NAME", "SITE", "HOST", "STATE", "KIND", "SIZE", "FREE", "PATH"],
                |pool| {
                    vec![
                        pool.name.clone(),
                        pool.site.name.clone(),
                        pool.host.name.clone(),
                        state(pool),
                        pool.kind.clone(),
                        ByteCount::new(pool.capacity_bytes).to_string(),
                        ByteCount::new(pool.available_bytes).to_string(),
                        or_dash(pool.path.as_ref()),
                    ]
                },
            );
        }
        Look::Show { name } => {
            let pool: Pool = session.get(&format!("/pools/{}", segment(&name))).await?;
            let fields = [
                ("Name", pool.name.clone()),
                ("Id", pool.id.to_string()),
                ("UUID", pool.uuid.to_string()),
                ("Host", format!("{} at {}", pool.host.name, pool.site.name)),
                ("State", state(&pool)),
                ("Autostart", yes(pool.autostart)),
                ("Kind", pool.kind.clone()),
                ("Path", or_dash(pool.path.as_ref())),
                ("Size", ByteCount::new(pool.capacity_bytes).to_string()),
                ("Free", ByteCount::new(pool.available_bytes).to_string()),
            ];
            output::item(session.json, &pool, &fields);
        }
    }
    Ok(())
}

fn state(pool: &Pool) -> String {
    let state = if pool.active { "active" } else { "inactive" };
    if pool.current { state.into() } else { format!("{state} as of {}", utc(pool.seen)) }
}
