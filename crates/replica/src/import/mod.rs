//! Files as points: images of a machine's disks become a point of its store.
//!
//! The images are an [offline copy](crate::offline_copy), which proves itself,
//! or bare files. What is in the newest point already is not stored again. The
//! point is sealed when every disk is in and proved: an import that fails, is
//! stopped or killed leaves none.
//!
//! Raw images are read directly, other formats through `qemu-nbd`. An image
//! that stands on another file is refused: whoever made it could have named
//! any file of this host.
//!
//! [`import_point`] takes a point of another store instead: that of a first copy
//! that was carried here.

mod disk;
mod fault;
mod image;
mod in_place;
mod probe;
mod qemu;
mod raw;
mod run;
mod stored;
mod wish;

pub use fault::ImportError;
pub use in_place::adopt_in_place;
pub use run::{import, import_point};
pub use wish::{DiskSource, Wish};

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::FileExt,
        path::PathBuf,
        sync::Arc,
    };

    use super::*;
    use crate::{
        geometry::DiskNumber,
        medium::simulated::SimulatedMedium,
        offline_copy::Stopped,
        writer::{Writer, WriterOptions},
    };

    const SIZE: u64 = (5 << 20) + 512;

    fn writer() -> Writer {
        Writer::open(Arc::new(SimulatedMedium::new(7)), WriterOptions::new(1)).unwrap()
    }

    /// Data, a hole, and zeroes that are written out.
    fn image(folder: &tempfile::TempDir) -> (PathBuf, Vec<u8>) {
        let path = folder.path().join("disk.raw");
        let file = File::create(&path).unwrap();
        file.set_len(SIZE).unwrap();
        let noise: Vec<u8> =
            (0..300_000_u32).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
        file.write_all_at(&noise, 4096 * 3).unwrap();
        file.write_all_at(&[0; 70_000], 3 << 20).unwrap();
        file.write_all_at(b"the end", SIZE - 7).unwrap();
        (path.clone(), fs::read(path).unwrap())
    }

    fn wish(path: &PathBuf) -> Wish {
        Wish::of_images(std::slice::from_ref(path), None, None).unwrap()
    }

    #[test]
    fn a_point_of_another_store_is_taken_over_with_its_instant() {
        let folder = tempfile::tempdir().unwrap();
        let (path, model) = image(&folder);
        let mut first = writer();
        import(&mut first, &wish(&path), &mut |_, _| Ok(())).unwrap();
        let point = first.store().newest().unwrap();
        let mut second = writer();
        let stopped = import_point(&mut second, &first.store(), &point, &mut |done, _| {
            if done > 1 << 20 { Err(Stopped) } else { Ok(()) }
        });
        assert!(matches!(stopped, Err(ImportError::Stopped)));
        assert!(second.store().newest().is_none());
        let taken = import_point(&mut second, &first.store(), &point, &mut |_, _| Ok(())).unwrap();
        assert_eq!((taken.instant, &taken.disks), (point.instant, &point.disks));
        assert!(taken.origin.starts_with("carried: images"), "{}", taken.origin);
        assert_eq!(contents(&second), model);
    }

    fn contents(writer: &Writer) -> Vec<u8> {
        let store = writer.store();
        let view = store.view(store.newest().unwrap().cycle, DiskNumber(0)).unwrap();
        view.read_to_vec(0, view.size()).unwrap()
    }

    #[test]
    fn a_point_is_what_the_image_is_and_only_changes_are_stored() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut model) = image(&folder);
        let mut writer = writer();
        import(&mut writer, &wish(&path), &mut |_, _| Ok(())).unwrap();
        assert_eq!(contents(&writer), model);
        let again = import(&mut writer, &wish(&path), &mut |_, _| Ok(())).unwrap();
        assert_eq!((again.stored, contents(&writer) == model), (0, true));

        // Data becomes a hole, a hole data, and the disk grows.
        model[..1 << 20].fill(0);
        model[4 << 20..(4 << 20) + 5].copy_from_slice(b"fresh");
        model.resize(6 << 20, 0);
        let file = File::create(&path).unwrap();
        file.set_len(6 << 20).unwrap();
        file.write_all_at(&model[1 << 20..], 1 << 20).unwrap();
        let changed = import(&mut writer, &wish(&path), &mut |_, _| Ok(())).unwrap();
        assert_eq!(contents(&writer), model);
        assert!(changed.stored < 200_000, "{}", changed.stored);
    }

    #[test]
    fn an_import_that_is_stopped_or_proved_wrong_leaves_no_point() {
        let folder = tempfile::tempdir().unwrap();
        let (path, model) = image(&folder);
        let mut writer = writer();
        let mut stop = |done, _| if done > 1 << 20 { Err(Stopped) } else { Ok(()) };
        let stopped = import(&mut writer, &wish(&path), &mut stop);
        assert!(matches!(stopped, Err(ImportError::Stopped)), "{stopped:?}");
        for (size, hash, why) in [
            (SIZE, blake3::hash(b"something else"), "is not what was copied"),
            (SIZE + 1, blake3::hash(&model), "and disk 0 has 5243393"),
        ] {
            let mut wish = wish(&path);
            wish.disks[0].proof = Some((size, hash));
            let refused = import(&mut writer, &wish, &mut |_, _| Ok(())).unwrap_err();
            assert!(refused.to_string().contains(why), "{refused}");
        }
        assert_eq!(writer.store().points(), []);
        // An image may be a little greater than its disk.
        let mut shorter = wish(&path);
        let proof = (SIZE - 512, blake3::hash(&model[..SIZE as usize - 512]));
        shorter.disks[0].proof = Some(proof);
        import(&mut writer, &shorter, &mut |_, _| Ok(())).unwrap();
        assert_eq!(contents(&writer), model[..SIZE as usize - 512]);
    }
}
