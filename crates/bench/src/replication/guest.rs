//! What a guest notices: `guest_iops`. Its writes per second with cycles of
//! 30 s, beside those without protection, need a guest.

use anyhow::Result;

use super::{Bench, Group};

const FIGURES: &[&str] = &["guest_iops"];

pub(super) const GROUP: Group = Group { figures: FIGURES, image: |_| 0, room: |_| 0, measure };

fn measure(bench: &mut Bench) -> Result<()> {
    bench.skip(
        FIGURES,
        "guests that count their writes are the lab's, and this crate does not use it",
    );
    Ok(())
}
