//! Decoders take anything.

use proptest::{collection::vec, prelude::*};
use replica::format::{
    entry::Entry,
    manifest::Manifest,
    record::{Commit, Header},
    run::{self, INDEX_BLOCK, Trailer},
    segment,
};

/// Puts a right checksum into a block, so that what follows it is reached.
fn index_block(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(INDEX_BLOCK, 0);
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn record(salt: u32, mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(64, 0);
    bytes[..4].copy_from_slice(b"LBr1");
    let crc = crc32c::crc32c_append(salt, &bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics(bytes in vec(any::<u8>(), 0..600), salt: u32, kind in 0..7_u8) {
        let _ = Entry::decode(&bytes);
        let _ = Manifest::decode(&bytes);
        let _ = Commit::decode(&bytes);
        let _ = Trailer::decode(&bytes);
        let _ = segment::Header::decode(&bytes);
        let _ = segment::decode_trailer(&bytes, salt);
        let _ = run::decode_block(&bytes);
        if let Ok(entries) = run::decode_block(&index_block(bytes.clone())) {
            assert!(entries.len() <= run::PER_BLOCK);
        }
        let mut known = bytes.clone();
        known.resize(64, 0);
        known[8] = kind;
        known[9] %= 2;
        if let Ok(header) = Header::decode(salt, &record(salt, known)) {
            assert_eq!(Header::decode(salt, &header.encode(salt)), Ok(header));
            let _ = header.open_payload(&bytes);
        }
    }
}
