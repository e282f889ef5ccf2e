//! A segment's first page and its end.
//!
//! ```text
//! page 0: header │ record │ record │ … │ footer record │ trailer (32 bytes)
//! ```
//! A segment without footer was being written when its writer stopped; the
//! manifest says how much of it counts, or its records are read in order.

use super::{Cursor, Malformed};

/// The most bytes of a segment.
pub const MAX_SEGMENT: u32 = 64 << 20;
/// Bytes before the first record.
pub const START: u32 = 4096;
/// Bytes of the trailer.
pub const TRAILER: usize = 32;
const MAGIC: [u8; 8] = *b"LBSEGMT1";
const END: [u8; 8] = *b"LBSEGEND";
const VERSION: u16 = 1;

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its number, as in its name.
    pub id: u32,
    /// Its writer's generation, as in its name.
    pub generation: u64,
    /// Where the checksums of its record headers start.
    pub salt: u32,
    /// Bytes that count of the segment before this one; 0 if nothing of it
    /// does. What it has beyond was cut off when its writer failed or was
    /// killed.
    pub previous_end: u32,
}

impl Header {
    /// The first page.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        // Of the key that payloads are encrypted with; 0 for none.
        out.extend_from_slice(&0_u16.to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.previous_end.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.resize(START as usize, 0);
        out
    }

    /// Reads the first page.
    ///
    /// # Errors
    /// It is none, or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        if cursor.array()? != MAGIC {
            return Err(Malformed("this is no segment"));
        }
        let version = cursor.u16()?;
        let key = cursor.u16()?;
        let header = Self {
            id: cursor.u32()?,
            generation: cursor.u64()?,
            salt: cursor.u32()?,
            previous_end: cursor.u32()?,
        };
        let crc = cursor.u32()?;
        if crc != crc32c::crc32c(bytes.get(..32).unwrap_or_default()) {
            return Err(Malformed("the segment header's checksum is wrong"));
        }
        if version != VERSION || key != 0 {
            return Err(Malformed("a segment of a newer version"));
        }
        Ok(header)
    }
}

/// A segment's last bytes: where its footer record lies.
#[must_use]
pub fn encode_trailer(footer: u32, salt: u32) -> [u8; TRAILER] {
    let mut out = END.to_vec();
    out.extend_from_slice(&footer.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c_append(salt, &out).to_le_bytes());
    let mut bytes = [0; TRAILER];
    bytes.iter_mut().zip(out).for_each(|(to, from)| *to = from);
    bytes
}

/// Where the footer record lies.
///
/// # Errors
/// This is no trailer.
pub fn decode_trailer(bytes: &[u8], salt: u32) -> Result<u32, Malformed> {
    let mut cursor = Cursor(bytes);
    if cursor.array()? != END {
        return Err(Malformed("the segment has no footer"));
    }
    let footer = cursor.u32()?;
    if cursor.u32()? != crc32c::crc32c_append(salt, bytes.get(..12).unwrap_or_default()) {
        return Err(Malformed("the segment trailer's checksum is wrong"));
    }
    Ok(footer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_trailers_come_back() {
        let header = Header { id: 3, generation: 9, salt: 77, previous_end: 5000 };
        let bytes = header.encode();
        assert_eq!(bytes.len(), START as usize);
        assert_eq!(Header::decode(&bytes), Ok(header));
        let mut spoilt = bytes;
        spoilt[12] ^= 1;
        assert!(Header::decode(&spoilt).is_err());
        let trailer = encode_trailer(123, 77);
        assert_eq!(decode_trailer(&trailer, 77), Ok(123));
        assert!(decode_trailer(&trailer, 78).is_err());
    }

    /// Changing this breaks every store in the field.
    #[test]
    fn golden_segment() {
        let header = Header { id: 3, generation: 9, salt: 77, previous_end: 5000 }.encode();
        let bytes = header[..36].iter().copied().chain(encode_trailer(123, 77));
        let hex: String = bytes.map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("golden/segment.hex").trim());
    }
}
