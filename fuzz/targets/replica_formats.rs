//! Each format of the replica store, with right checksums so that what lies
//! behind them is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replica::format::{
    entry::Entry,
    manifest::Manifest,
    record::{Commit, Header},
    run::{self, INDEX_BLOCK, Trailer},
    segment,
};

fuzz_target!(|input: (u32, &[u8])| {
    let (salt, bytes) = input;
    if let Ok(entry) = Entry::decode(bytes) {
        let mut out = Vec::new();
        entry.encode(&mut out);
        assert_eq!(Entry::decode(&out), Ok(entry));
    }
    let _ = Manifest::decode(bytes);
    if let Ok(commit) = Commit::decode(bytes) {
        assert!(Commit::decode(&commit.encode()).is_ok());
    }
    if let Ok(trailer) = Trailer::decode(bytes) {
        let _ = run::decode_fences(&trailer, bytes);
    }
    let _ = segment::Header::decode(bytes);
    let _ = segment::decode_trailer(bytes, salt);
    let mut block = bytes.to_vec();
    block.resize(INDEX_BLOCK, 0);
    let crc = crc32c::crc32c(&block[4..]);
    block[..4].copy_from_slice(&crc.to_le_bytes());
    let _ = run::decode_block(&block);
    let mut record = bytes.to_vec();
    record.resize(record.len().max(64), 0);
    record[..4].copy_from_slice(b"LBr1");
    let crc = crc32c::crc32c_append(salt, &record[8..64]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
    if let Ok(header) = Header::decode(salt, &record) {
        assert_eq!(Header::decode(salt, &header.encode(salt)), Ok(header));
        let _ = header.open_payload(&record[64..]);
    }
});
