//! Guessing a bare image's format.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use crate::offline_copy::ImageKind;

/// Where formats have their marks.
const MARKS: [(u64, &[u8], ImageKind); 6] = [
    (0, b"QFI\xfb", ImageKind::Qcow2),
    (0, b"vhdxfile", ImageKind::Vhdx),
    (0, b"conectix", ImageKind::Vpc),
    (0, b"KDMV", ImageKind::Vmdk),
    (0, b"# Disk DescriptorFile", ImageKind::Vmdk),
    (0x40, b"\x7f\x10\xda\xbe", ImageKind::Vdi),
];

/// The format that a file seems to have; raw if it has no other's mark. Only
/// for files that an operator names and vouches for.
pub(crate) fn kind_of(path: &Path) -> io::Result<ImageKind> {
    let file = File::open(path)?;
    for (at, mark, kind) in MARKS {
        let mut found = vec![0; mark.len()];
        match file.read_exact_at(&mut found, at) {
            Ok(()) if found == mark => return Ok(kind),
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ImageKind::Raw)
}
