// SPDX-License-Identifier: GPL-2.0

//! The aperture: the device addresses that a LIODN may use, and the number of its windows.

use super::{
    is_block_size,
    Invalid,
    MIN_SIZE, //
};

/// The device addresses that a LIODN may use.
///
/// # Invariants
///
/// `size` is a power of two of at least [`MIN_SIZE`], and `start` is a multiple of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aperture {
    start: u64,
    size: u64,
}

impl Aperture {
    /// 64 GiB starting at address 0. Boot loaders give it to each device, and userspace reads it
    /// until it sets an aperture.
    pub(crate) const DEFAULT: Self = Self {
        start: 0,
        size: 1 << 36,
    };

    /// Returns the aperture from `start` to `last`, both inclusive.
    ///
    /// # Errors
    ///
    /// [`Invalid::Aperture`] if the size isn't a power of two or is less than 4 KiB, or if `start`
    /// isn't a multiple of the size.
    pub(crate) fn new(start: u64, last: u64) -> Result<Self, Invalid> {
        let size = last.wrapping_sub(start).wrapping_add(1);
        if last < start {
            return Err(Invalid::Aperture);
        }
        Self::of_size(start, size)
    }

    /// Returns the aperture of `size` bytes starting at `start`.
    pub fn of_size(start: u64, size: u64) -> Result<Self, Invalid> {
        if !is_block_size(size) || start & (size - 1) != 0 {
            return Err(Invalid::Aperture);
        }
        // INVARIANT: Checked above.
        Ok(Self { start, size })
    }

    /// Returns the first address.
    pub(crate) fn start(self) -> u64 {
        self.start
    }

    /// Returns the last address.
    pub(crate) fn last(self) -> u64 {
        self.start + (self.size - 1)
    }

    /// Returns the size in bytes.
    pub(crate) fn size(self) -> u64 {
        self.size
    }

    /// Returns the base-2 logarithm of the size, from 12 to 63.
    pub(crate) fn order(self) -> u32 {
        self.size.trailing_zeros()
    }

    /// Returns the size of each window if there are `windows` windows.
    pub(crate) fn window_size(self, windows: Windows) -> Result<u64, Invalid> {
        let size = self.size >> windows.log2();
        if size < MIN_SIZE {
            return Err(Invalid::Windows);
        }
        Ok(size)
    }
}

/// A number of windows.
///
/// # Invariants
///
/// It is a power of two of at most [`Windows::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows(u32);

impl Windows {
    /// The number of windows of an undivided aperture.
    pub(crate) const ONE: Self = Self(1);

    /// The maximum of the encoding. Hardware may support less.
    pub(crate) const MAX: u32 = 1 << 16;

    /// Returns the number `count`, checked.
    pub(crate) fn new(count: u32) -> Result<Self, Invalid> {
        if !count.is_power_of_two() || count > Self::MAX {
            return Err(Invalid::Windows);
        }
        // INVARIANT: Checked above.
        Ok(Self(count))
    }

    /// Returns the number as an integer.
    pub(crate) fn count(self) -> u32 {
        self.0
    }

    /// Returns the base-2 logarithm of the number.
    pub(crate) fn log2(self) -> u32 {
        self.0.trailing_zeros()
    }

    /// Returns how many of the windows have a secondary entry.
    pub(crate) fn spaaces(self) -> u32 {
        self.0 - 1
    }
}

#[kernel::macros::kunit_tests(vfio_pamu_aperture)]
mod tests {
    use kernel::prelude::*;

    use super::*;

    use crate::paace::MIN_ORDER;

    #[test]
    fn every_aligned_power_of_two() -> Result {
        for order in 0..u64::BITS {
            let size = 1u64 << order;
            for start in [0, size, size.wrapping_mul(6)] {
                let Some(last) = start.checked_add(size - 1) else {
                    continue;
                };
                let made = Aperture::new(start, last);
                if order < MIN_ORDER {
                    assert_eq!(made, Err(Invalid::Aperture));
                    continue;
                }
                let made = made?;
                assert_eq!((made.start(), made.last()), (start, last));
                assert_eq!((made.size(), made.order()), (size, order));
                if let Some(last) = last.checked_add(MIN_SIZE) {
                    let moved = Aperture::new(start + MIN_SIZE, last);
                    assert_eq!(moved.is_ok(), order == MIN_ORDER);
                }
            }
        }
        assert!(Aperture::new(u64::MAX - 0xfff, u64::MAX).is_ok());
        Ok(())
    }

    #[test]
    fn other_ranges_and_counts_are_rejected() {
        for (start, last) in [
            (0, 0),
            (0, 0x7ff),
            (0, 0xffe),
            (0, 0x1000),
            (0, 0x17ff),
            (0, 0x2fff),
            (0x800, 0x17ff),
            (0x1000, 0),
            (0x1000, 0xfff),
            (0x1000, 0x2fff),
            (5, 4),
            (0, u64::MAX),
            (u64::MAX, u64::MAX),
            (u64::MAX, 0),
        ] {
            assert_eq!(Aperture::new(start, last), Err(Invalid::Aperture));
        }
        for count in [0, 3, 255, 1 << 17, u32::MAX] {
            assert_eq!(Windows::new(count), Err(Invalid::Windows));
        }
    }
}
