// SPDX-License-Identifier: GPL-2.0

//! The division of an aperture into windows, and the windows that a request refers to.

use kernel::prelude::*;

use crate::paace::{
    Aperture,
    Windows,
    MIN_ORDER, //
};

/// An aperture and its windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    aperture: Aperture,
    windows: Windows,
}

/// Consecutive windows. The last one may be used in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first window.
    pub(crate) first: u32,
    /// The number of windows, at least one.
    pub(crate) count: u32,
    /// The base-2 logarithm of the window size.
    pub(crate) order: u32,
    /// The base-2 logarithm of the used part of the last window.
    pub(crate) last_order: u32,
}

impl Span {
    /// Iterates over the windows, each with the base-2 logarithm of its used part.
    pub(crate) fn windows(self) -> impl Iterator<Item = (u32, u32)> {
        (0..self.count).map(move |nth| {
            let whole = nth + 1 < self.count;
            let order = if whole { self.order } else { self.last_order };
            (self.first + nth, order)
        })
    }

    /// Returns the number of the window after the last one.
    pub(crate) fn end(&self) -> u32 {
        self.first + self.count
    }
}

impl Layout {
    /// Divides `aperture` into `count` windows. The hardware supports at most `max`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the count isn't a power of two or is too large, or if a window would be smaller
    /// than 4 KiB.
    pub(crate) fn new(aperture: Aperture, count: u32, max: u32) -> Result<Self> {
        let windows = Windows::new(count)?;
        if count > max {
            return Err(EINVAL);
        }
        aperture.window_size(windows)?;
        Ok(Self { aperture, windows })
    }

    /// Returns the aperture.
    pub(crate) fn aperture(&self) -> Aperture {
        self.aperture
    }

    /// Returns the number of windows.
    pub(crate) fn count(&self) -> u32 {
        self.windows.count()
    }

    /// Returns the base-2 logarithm of the window size.
    pub(crate) fn window_order(&self) -> u32 {
        self.aperture.order() - self.windows.log2()
    }

    /// Returns the window size in bytes.
    pub(crate) fn window_size(&self) -> u64 {
        1 << self.window_order()
    }

    /// Returns the first address of a window.
    pub(crate) fn start_of(&self, window: u32) -> u64 {
        self.aperture.start() + (u64::from(window) << self.window_order())
    }

    /// Returns the window that contains an address, and the offset of the address in it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the address is outside the aperture.
    pub(crate) fn locate(&self, iova: u64) -> Result<(u32, u64)> {
        if iova < self.aperture.start() || iova > self.aperture.last() {
            return Err(EINVAL);
        }
        let offset = iova - self.aperture.start();
        let window = offset >> self.window_order();
        Ok((window as u32, offset & (self.window_size() - 1)))
    }

    /// Returns the first and the last window that overlap the addresses from `iova` to `end`,
    /// inclusive.
    pub(crate) fn windows_in(&self, iova: u64, end: u64) -> Option<(u32, u32)> {
        let (first, _) = self.locate(iova.max(self.aperture.start())).ok()?;
        let (last, _) = self.locate(end.min(self.aperture.last())).ok()?;
        (first <= last).then_some((first, last))
    }

    /// Returns the window that starts at `iova`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if no window starts there.
    pub(crate) fn starting_at(&self, iova: u64) -> Result<u32> {
        match self.locate(iova)? {
            (window, 0) => Ok(window),
            _ => Err(EINVAL),
        }
    }

    /// Returns the windows for a mapping of `size` bytes at `iova`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `iova` isn't the start of a window, if the mapping exceeds the aperture, or if
    /// the part in the last window isn't a power of two of at least 4 KiB.
    pub(crate) fn span(&self, iova: u64, size: u64) -> Result<Span> {
        let first = self.starting_at(iova)?;
        let whole = size >> self.window_order();
        let rest = size & (self.window_size() - 1);
        if rest != 0 && (!rest.is_power_of_two() || rest.trailing_zeros() < MIN_ORDER) {
            return Err(EINVAL);
        }
        let count = whole + u64::from(rest != 0);
        if count == 0 || count > u64::from(self.count() - first) {
            return Err(EINVAL);
        }
        let last_order = if rest == 0 {
            self.window_order()
        } else {
            rest.trailing_zeros()
        };
        Ok(Span {
            first,
            count: count as u32,
            order: self.window_order(),
            last_order,
        })
    }
}

#[kunit_tests(vfio_pamu_geometry)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The aperture of the RFC: 512 MiB in 8 windows.
    fn rfc() -> Result<Layout> {
        Layout::new(Aperture::new(0, 512 * MIB - 1)?, 8, 256)
    }

    #[test]
    fn layout_counts() -> Result {
        let aperture = Aperture::new(0, 0x7fff)?;
        for count in 0..=512 {
            let good = [1, 2, 4, 8].contains(&count);
            assert_eq!(Layout::new(aperture, count, 256).is_ok(), good);
        }
        assert_eq!(Layout::new(Aperture::DEFAULT, 256, 128), Err(EINVAL));
        assert_eq!(Layout::new(Aperture::DEFAULT, 256, 256)?.window_order(), 28);
        assert_eq!(
            Layout::new(Aperture::DEFAULT, 1 << 31, u32::MAX),
            Err(EINVAL)
        );
        Ok(())
    }

    #[test]
    fn windows_of_addresses() -> Result {
        let layout = rfc()?;
        assert_eq!((layout.count(), layout.window_size()), (8, 64 * MIB));
        for window in 0..8 {
            let start = layout.start_of(window);
            assert_eq!(layout.starting_at(start), Ok(window));
            assert_eq!(layout.starting_at(start + 1), Err(EINVAL));
            assert_eq!(
                layout.locate(start + 64 * MIB - 1),
                Ok((window, 64 * MIB - 1))
            );
        }
        assert_eq!(layout.locate(512 * MIB), Err(EINVAL));
        assert_eq!(layout.locate(u64::MAX), Err(EINVAL));
        for (iova, end, expected) in [
            (0, u64::MAX, Some((0, 7))),
            (64 * MIB, 128 * MIB, Some((1, 2))),
            (64 * MIB - 1, 64 * MIB - 1, Some((0, 0))),
            (512 * MIB, u64::MAX, None),
        ] {
            assert_eq!(layout.windows_in(iova, end), expected);
        }
        let high = Layout::new(Aperture::new(1 << 32, (1 << 32) + 0xffff)?, 16, 16)?;
        assert_eq!(high.locate((1 << 32) - 1), Err(EINVAL));
        assert_eq!(high.starting_at((1 << 32) + 0xf000), Ok(15));
        assert_eq!(high.windows_in(0, (1 << 32) - 1), None);
        assert_eq!(high.windows_in(0, u64::MAX), Some((0, 15)));
        Ok(())
    }

    #[test]
    fn spans() -> Result {
        let layout = rfc()?;
        for (iova, size, expected) in [
            (0, 64 * MIB, Some((0, 1, 26))),
            (0, 256 * MIB, Some((0, 4, 26))),
            (256 * MIB, 4096, Some((4, 1, 12))),
            (0, 128 * MIB + 8192, Some((0, 3, 13))),
            (448 * MIB, 64 * MIB, Some((7, 1, 26))),
            (0, 0, None),
            (0, 2048, None),
            (0, 3 * 4096, None),
            (4096, 64 * MIB, None),
            (0, 64 * MIB + 2048, None),
            (448 * MIB, 64 * MIB + 4096, None),
            (0, 1024 * MIB, None),
            (0, u64::MAX, None),
            (0, !(64 * MIB - 1), None),
            (512 * MIB, 4096, None),
        ] {
            let span = layout.span(iova, size).ok();
            assert_eq!(span.map(|s| (s.first, s.count, s.last_order)), expected);
        }
        let mut windows = layout.span(64 * MIB, 64 * MIB + 4096)?.windows();
        assert_eq!(windows.next(), Some((1, 26)));
        assert_eq!(windows.next(), Some((2, 12)));
        assert_eq!(windows.next(), None);
        Ok(())
    }
}
