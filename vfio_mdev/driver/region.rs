// SPDX-License-Identifier: GPL-2.0

//! The content of regions, and the register accesses that a driver handles.

use core::ops::Range;

use crate::memory::DeviceMemory;

/// In the device file, a region starts at its index shifted left by this.
pub(crate) const OFFSET_SHIFT: u32 = 40;

/// The content of a region of a device.
#[derive(Clone, Copy)]
pub struct Region<'a> {
    pub(crate) size: u64,
    pub(crate) memory: Option<&'a DeviceMemory>,
    pub(crate) writable: bool,
    pub(crate) mappable: bool,
}

impl<'a> Region<'a> {
    /// `size` bytes of registers. The driver handles reads and writes as [`Access`]es. Sizes above
    /// 2⁴⁰ bytes are reduced to 2⁴⁰.
    pub const fn registers(size: u64) -> Self {
        let most = 1 << OFFSET_SHIFT;
        Self {
            size: if size < most { size } else { most },
            memory: None,
            writable: true,
            mappable: false,
        }
    }

    /// Memory that userspace reads, writes and maps without involving the driver.
    pub const fn memory(memory: &'a DeviceMemory) -> Self {
        Self {
            memory: Some(memory),
            mappable: true,
            ..Self::registers(memory.len() as u64)
        }
    }

    /// The same region, but neither it nor mappings of it can be written.
    pub const fn read_only(self) -> Self {
        Self {
            writable: false,
            ..self
        }
    }

    /// The same region, but it cannot be mapped.
    pub const fn unmappable(self) -> Self {
        Self {
            mappable: false,
            ..self
        }
    }
}

/// The width of a register access. The values are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte = 1,
    /// 16 bits.
    Word = 2,
    /// 32 bits.
    Long = 4,
}

/// The bytes of a region that are read or written. The offset is a multiple of the width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The offset of the first byte in the region.
    pub offset: u64,
    /// The number of bytes.
    pub width: Width,
}

impl Access {
    /// Returns the number of bytes: 1, 2 or 4.
    #[expect(clippy::len_without_is_empty)]
    pub const fn len(self) -> usize {
        self.width as usize
    }

    /// Returns the bytes as a range of an array that holds the region's content.
    pub const fn range(self) -> Range<usize> {
        self.offset as usize..self.offset as usize + self.len()
    }

    /// Returns the first of the accesses to `count` bytes at `offset`: the widest access that is
    /// aligned. Returns `None` for no bytes.
    #[inline]
    pub(crate) fn first(offset: u64, count: usize) -> Option<Self> {
        let width = match (offset % 4, count) {
            (_, 0) => return None,
            (0, 4..) => Width::Long,
            (0 | 2, 2..) => Width::Word,
            _ => Width::Byte,
        };
        Some(Self { offset, width })
    }

    /// Returns the access to `count` bytes at `offset`, if a single access is sufficient.
    #[inline]
    pub(crate) fn only(offset: u64, count: usize) -> Option<Self> {
        Self::first(offset, count).filter(|at| at.len() == count)
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_mdev_region)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_wide_and_aligned() {
        for offset in 0..9 {
            for count in 0..12 {
                let (mut at, mut left) = (offset, count);
                while let Some(access) = Access::first(at, left) {
                    assert_eq!(access.offset, at);
                    assert!(access.len() <= left);
                    assert_eq!(at % access.len() as u64, 0);
                    let wider = access.len() * 2;
                    assert!(wider > 4 || wider > left || at % wider as u64 != 0);
                    at += access.len() as u64;
                    left -= access.len();
                }
                assert_eq!(left, 0);
                assert_eq!(at, offset + count as u64);
            }
        }
    }

    #[test]
    fn sizes_stay_below_the_next_region() {
        assert_eq!(Region::registers(u64::MAX).size, 1 << OFFSET_SHIFT);
        assert_eq!(Region::registers(256).size, 256);
    }
}
