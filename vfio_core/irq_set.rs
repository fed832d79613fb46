// SPDX-License-Identifier: GPL-2.0

//! Validation of `VFIO_DEVICE_SET_IRQS` requests.

/// The fixed part of `struct vfio_irq_set`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) index: u32,
    pub(crate) start: u32,
    pub(crate) count: u32,
}

/// Size in bytes of the fixed part.
const HEADER_SIZE: u32 = 20;
/// The data type bits: no data, one byte per vector, one eventfd per vector.
const DATA_NONE: u32 = 1 << 0;
const DATA_BOOL: u32 = 1 << 1;
const DATA_EVENTFD: u32 = 1 << 2;
const DATA_MASK: u32 = DATA_NONE | DATA_BOOL | DATA_EVENTFD;
/// The action bits: mask, unmask, trigger.
const ACTION_MASK: u32 = 0b111 << 3;

impl Header {
    /// Returns the size in bytes of the data that follows the header. `types` is the number of
    /// interrupt types of the device, `vectors` the number of vectors of the requested type.
    /// Returns `None` if the request is malformed.
    pub(crate) fn data_size(&self, vectors: u32, types: u32) -> Option<usize> {
        if self.argsz < HEADER_SIZE
            || self.index >= types
            || self.count >= u32::MAX - self.start
            || self.flags & !(DATA_MASK | ACTION_MASK) != 0
            || self.start >= vectors
            || self.start + self.count > vectors
        {
            return None;
        }
        let each = match self.flags & DATA_MASK {
            DATA_NONE => 0,
            DATA_BOOL => 1,
            DATA_EVENTFD => 4,
            _ => return None,
        };
        let size = self.count as usize * each;
        ((self.argsz - HEADER_SIZE) as usize >= size).then_some(size)
    }

    /// Returns whether the request has a data type other than [`DATA_NONE`].
    pub(crate) fn has_data(&self) -> bool {
        self.flags & DATA_MASK != DATA_NONE
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_core_irq_set)]
mod tests {
    use super::*;

    const GOOD: Header = Header {
        argsz: 20,
        flags: DATA_NONE | 1 << 5,
        index: 1,
        start: 0,
        count: 4,
    };

    #[test]
    fn d23_data_types() {
        for flags in 0..64 {
            let header = Header {
                argsz: 20 + 16,
                flags,
                ..GOOD
            };
            let expected = match flags & 7 {
                1 => Some(0),
                2 => Some(4),
                4 => Some(16),
                _ => None,
            };
            assert_eq!(header.data_size(4, 2), expected);
        }
        assert_eq!(
            Header {
                flags: 1 << 6,
                ..GOOD
            }
            .data_size(4, 2),
            None
        );
    }

    #[test]
    fn d23_sizes() {
        for argsz in 0..64 {
            let none = Header { argsz, ..GOOD };
            assert_eq!(none.data_size(4, 2).is_some(), argsz >= 20);
            let fds = Header {
                argsz,
                flags: DATA_EVENTFD,
                ..GOOD
            };
            assert_eq!(fds.data_size(4, 2).is_some(), argsz >= 36);
        }
    }

    #[test]
    fn d23_ranges() {
        let edges = [0, 1, 3, 4, 5, u32::MAX / 2, u32::MAX - 1, u32::MAX];
        for start in edges {
            for count in edges {
                let header = Header {
                    start,
                    count,
                    ..GOOD
                };
                let fits = u64::from(start) + u64::from(count) <= 4 && start < 4;
                assert_eq!(header.data_size(4, 2).is_some(), fits);
            }
        }
        for index in 0..4 {
            assert_eq!(
                Header { index, ..GOOD }.data_size(4, 2).is_some(),
                index < 2
            );
        }
    }
}
