// SPDX-License-Identifier: GPL-2.0

//! The format of migration data. A header precedes the device's state, so that the target can
//! decide whether it can load the state before it receives it. A checksum follows the state.
//!
//! | Offset | Bytes | Header field                                                 |
//! |--------|-------|--------------------------------------------------------------|
//! | 0      | 8     | `MDEV mig`                                                   |
//! | 8      | 4     | version of this format: 1                                    |
//! | 12     | 4     | version of the driver's format                               |
//! | 16     | 8     | size of the state in bytes                                   |
//! | 24     | 40    | driver and type of the device, as in `vgpu_p2p-p2p-1x`       |
//!
//! All numbers are little endian.

/// The header of migration data.
#[derive(Clone)]
pub(super) struct Header {
    bytes: [u8; Self::SIZE],
    state_size: usize,
}

impl Header {
    /// The size of a header in bytes.
    pub(super) const SIZE: usize = 64;
    /// The size of a checksum in bytes.
    pub(super) const SUM_SIZE: usize = 8;
    const MAGIC: [u8; 8] = *b"MDEV mig";
    const FORMAT: u32 = 1;
    const NAME: usize = 24;

    /// Creates the header for devices of this driver and this type.
    pub(super) fn new(driver: &[u8], ty: &[u8], version: u32, state_size: usize) -> Self {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&Self::MAGIC);
        bytes[8..12].copy_from_slice(&Self::FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&version.to_le_bytes());
        bytes[16..Self::NAME].copy_from_slice(&(state_size as u64).to_le_bytes());
        let name = [driver, b"-", ty].into_iter().flatten();
        for (to, from) in bytes[Self::NAME..].iter_mut().zip(name) {
            *to = *from;
        }
        Self { bytes, state_size }
    }

    /// Returns the header as it is transferred.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the received bytes can be this header. `arrived` may be shorter or longer than the
    /// header.
    pub(super) fn may_be(&self, arrived: &[u8]) -> bool {
        self.bytes.iter().zip(arrived).all(|(own, new)| own == new)
    }

    /// Returns the offset of the checksum.
    pub(super) fn sum_offset(&self) -> usize {
        Self::SIZE.saturating_add(self.state_size)
    }

    /// Returns the size of all data. It saturates: the allocation for such a size fails.
    pub(super) fn total(&self) -> usize {
        self.sum_offset().saturating_add(Self::SUM_SIZE)
    }
}

/// Computes the checksum of a state, 64-bit FNV-1a. It detects accidental changes, not deliberate
/// ones.
pub(super) fn sum(state: &[u8]) -> [u8; Header::SUM_SIZE] {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    state.iter().fold(0xcbf2_9ce4_8422_2325, step).to_le_bytes()
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_mdev_migration_header)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_of_one_kind_fit() {
        let own = Header::new(b"driver", b"large", 3, 100);
        assert!(own.may_be(own.as_bytes()));
        for other in [
            Header::new(b"drivel", b"large", 3, 100),
            Header::new(b"driver", b"larger", 3, 100),
            Header::new(b"driver", b"larg", 3, 100),
            Header::new(b"driver", b"large", 4, 100),
            Header::new(b"driver", b"large", 3, 101),
        ] {
            assert!(!own.may_be(other.as_bytes()));
        }
        assert_eq!(own.total(), 64 + 100 + 8);
    }

    #[test]
    fn a_wrong_byte_is_seen_as_soon_as_it_arrives() {
        let own = Header::new(b"driver", b"large", 3, 100);
        for at in 0..Header::SIZE {
            let mut wrong = own.clone().bytes;
            wrong[at] ^= 0x40;
            assert!(own.may_be(&wrong[..at]));
            assert!(!own.may_be(&wrong[..at + 1]));
        }
    }

    #[test]
    fn long_names_are_cut() {
        let name = [b'x'; 100];
        let header = Header::new(&name, b"large", 1, 0);
        assert!(header.as_bytes().ends_with(&[b'x'; 40]));
    }

    #[test]
    fn sums_are_those_of_fnv_1a() {
        assert_eq!(u64::from_le_bytes(sum(b"")), 0xcbf2_9ce4_8422_2325);
        assert_eq!(u64::from_le_bytes(sum(b"a")), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(u64::from_le_bytes(sum(b"foobar")), 0x8594_4171_f739_67e8);
    }
}
