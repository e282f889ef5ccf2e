//! Images as points without copying them.

use super::{fault::ImportError, wish::Wish};
use crate::{
    adopt, format::manifest::Point, geometry::DiskNumber, offline_copy::Progress, writer::Writer,
};

/// Makes a point of images that stay where they are: they are read once, for
/// their hashes, and belong to the store from then on. Durable on return.
/// `progress` is told of `(done, total)` in bytes of data. Blocks, as
/// [`import`](super::import). Hashes of an offline copy are not asked for:
/// what is adopted has hashes of its own.
///
/// # Errors
/// [`NotAdoptable`](crate::error::StoreError::NotAdoptable), and others of
/// [`ImportError`]; there is no new point then.
pub fn adopt_in_place(
    writer: &mut Writer,
    wish: &Wish,
    progress: &mut Progress<'_>,
) -> Result<Point, ImportError> {
    let layouts = wish.disks.iter().map(|source| adopt::layout(&source.path, source.kind));
    let layouts = layouts.collect::<Result<Vec<_>, _>>()?;
    let sizes: Vec<u64> = layouts.iter().map(|layout| layout.size).collect();
    let stretches = layouts.iter().flat_map(|layout| &layout.stretches);
    let total = stretches.map(|stretch| stretch.length).sum();
    writer.begin(&sizes)?;
    let mut done = 0;
    for (number, layout) in (0..).zip(&layouts) {
        let mut stopped = Ok(());
        let adopted = writer.adopt(DiskNumber(number), layout, |bytes| {
            done += bytes;
            stopped = progress(done, total);
            stopped.is_ok()
        });
        if adopted.is_err() || stopped.is_err() {
            writer.give_up()?;
        }
        stopped?;
        adopted?;
    }
    Ok(writer.seal(wish.facts.clone())?)
}
