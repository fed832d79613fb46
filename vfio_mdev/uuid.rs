// SPDX-License-Identifier: GPL-2.0

//! UUIDs, the names of mediated devices and of peer-to-peer groups.

#[allow(unsafe_code)]
mod abi;

use kernel::{
    fmt,
    prelude::*, //
};

/// A UUID: 16 bytes, in the order of its text form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uuid([u8; 16]);

/// The positions of the hyphens in the text.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The position of each byte of the text in a `guid_t`, whose first three fields are little endian.
const GUID_ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

impl Uuid {
    /// The length of the text in bytes, without a newline.
    pub(crate) const TEXT_LEN: usize = 36;

    /// Parses the text: 32 hexadecimal digits in either case, with hyphens after 8, 12, 16 and 20
    /// digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != Self::TEXT_LEN || HYPHENS.iter().any(|&at| text[at] != b'-') {
            return None;
        }
        let mut digits = text
            .iter()
            .enumerate()
            .filter(|(at, _)| !HYPHENS.contains(at))
            .map(|(_, &digit)| char::from(digit).to_digit(16));
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let (high, low) = (digits.next()??, digits.next()??);
            *byte = (high << 4 | low) as u8;
        }
        Some(Self(bytes))
    }

    /// Creates a UUID from 16 bytes in the order of the text.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Creates a random UUID (version 4).
    pub fn random() -> Self {
        Self(abi::random())
    }

    /// Returns the bytes of a `guid_t`.
    pub(crate) fn to_guid(self) -> [u8; 16] {
        let mut guid = [0; 16];
        for (byte, at) in self.0.into_iter().zip(GUID_ORDER) {
            guid[at] = byte;
        }
        guid
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            f.write_fmt(fmt!("{:02x}", byte))?;
        }
        Ok(())
    }
}

#[kunit_tests(vfio_mdev_uuid)]
mod tests {
    use super::*;
    use kernel::str::CString;

    const TEXT: &[u8] = b"00112233-4455-6677-8899-aabbccddeeff";

    fn text_of(uuid: Uuid) -> Result<CString> {
        CString::try_from_fmt(fmt!("{}", uuid))
    }

    #[test]
    fn reads_and_shows() -> Result {
        let uuid = Uuid::parse(TEXT).ok_or(EINVAL)?;
        assert_eq!(uuid.0[0], 0x00);
        assert_eq!(uuid.0[15], 0xff);
        assert_eq!(text_of(uuid)?.to_bytes(), TEXT);
        let upper = Uuid::parse(b"00112233-4455-6677-8899-AABBCCDDEEFF").ok_or(EINVAL)?;
        assert!(upper == uuid);
        Ok(())
    }

    #[test]
    fn refuses() {
        for text in [
            &b""[..],
            b"00112233-4455-6677-8899-aabbccddeef",
            b"00112233-4455-6677-8899-aabbccddeeff0",
            b"00112233-4455-6677-8899-aabbccddeeff\n",
            b"001122334-455-6677-8899-aabbccddeeff",
            b"00112233_4455-6677-8899-aabbccddeeff",
            b"g0112233-4455-6677-8899-aabbccddeeff",
            b"00112233-4455-6677-8899-aabbccddee f",
            b"00112233-4455-6677-8899-aabbccddee-f",
            b"{0112233-4455-6677-8899-aabbccddeef}",
        ] {
            assert!(Uuid::parse(text).is_none());
        }
    }

    #[test]
    fn any_other_byte_is_refused() {
        for at in 0..TEXT.len() {
            for byte in 0..=u8::MAX {
                let mut text = [0; Uuid::TEXT_LEN];
                text.copy_from_slice(TEXT);
                text[at] = byte;
                let right = if HYPHENS.contains(&at) {
                    byte == b'-'
                } else {
                    byte.is_ascii_hexdigit()
                };
                assert_eq!(Uuid::parse(&text).is_some(), right);
            }
        }
    }

    #[test]
    fn guid_has_little_endian_fields() -> Result {
        let guid = Uuid::parse(TEXT).ok_or(EINVAL)?.to_guid();
        assert_eq!(guid[..8], [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66]);
        assert_eq!(guid[8..], [0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
        Ok(())
    }

    #[test]
    fn random_ones_differ_and_say_their_version() -> Result {
        let (a, b) = (Uuid::random(), Uuid::random());
        assert!(a != b);
        assert_eq!(text_of(a)?.to_bytes()[14], b'4');
        assert!(b"89ab".contains(&text_of(a)?.to_bytes()[19]));
        Ok(())
    }
}
