// SPDX-License-Identifier: GPL-2.0

//! Allocation of iovas.

use crate::IovaRange;

/// Allocates addresses from the ranges that a container can map, in ascending order. No address is
/// returned twice.
#[derive(Clone, Debug)]
pub struct IovaAllocator {
    ranges: Vec<IovaRange>,
    next: u64,
}

impl IovaAllocator {
    /// Allocates from `ranges`, starting at `first`.
    pub fn new(ranges: &[IovaRange], first: u64) -> Self {
        Self {
            ranges: ranges.to_vec(),
            next: first,
        }
    }

    /// Returns the start of `size` bytes, aligned to `align` (a power of two), or `None` if no
    /// range has enough room.
    pub fn take(&mut self, size: u64, align: u64) -> Option<u64> {
        let last_of = |start: u64| start.checked_add(size.checked_sub(1)?);
        for range in &self.ranges {
            let Some(start) = self
                .next
                .max(range.start)
                .checked_next_multiple_of(align.max(1))
            else {
                continue;
            };
            if let Some(last) = last_of(start).filter(|last| *last <= range.end) {
                self.next = last.checked_add(1)?;
                return Some(start);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGES: [IovaRange; 2] = [
        IovaRange {
            start: 0,
            end: 0xfed_ffff,
        },
        IovaRange {
            start: 0xff0_0000,
            end: u64::MAX,
        },
    ];

    #[test]
    fn skips_holes_and_aligns() {
        let mut iova = IovaAllocator::new(&RANGES, 0xfe0_0000);
        assert_eq!(iova.take(0x1000, 0x1000), Some(0xfe0_0000));
        assert_eq!(iova.take(0x10_0000, 0x1000), Some(0xff0_0000));
        assert_eq!(iova.take(0x1000, 0x20_0000), Some(0x1000_0000));
    }

    #[test]
    fn ends() {
        let mut iova = IovaAllocator::new(&RANGES[..1], 0xfed_f000);
        assert_eq!(iova.take(0x2000, 0x1000), None);
        assert_eq!(iova.take(0x1000, 0x1000), Some(0xfed_f000));
        assert_eq!(iova.take(0x1000, 0x1000), None);
        assert_eq!(IovaAllocator::new(&RANGES, 0).take(0, 1), None);
    }
}
