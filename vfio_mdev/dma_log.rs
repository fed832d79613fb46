// SPDX-License-Identifier: GPL-2.0

//! Which of a program's memory a device has written to: DMA logging of `<linux/vfio.h>`.
//!
//! A driver in Rust reaches that memory through this crate only, so the crate notes what it writes;
//! there is nothing that a driver could forget. A write is noted when it is done: a report may miss
//! one that is under way, and then the next report has it.

use iommu_group::{
    ranges::Range,
    software, //
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    rbtree::RBTree,
    sync::Mutex, //
};
use kernel_ext::dirty_bitmap;

/// Whether the core can pass on what a log has: ours can. The kernel's would begin a log, but never
/// report, which is worse than none.
pub(crate) fn can_be_reported() -> bool {
    dirty_bitmap::KERNELS || software::can_regroup()
}

/// The log of a device, if it has one at the time.
#[pin_data]
pub(crate) struct DmaLog {
    #[pin]
    log: Mutex<Option<Log>>,
}

impl DmaLog {
    /// Without a log.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { log <- new_mutex!(None, "vfio_mdev::DmaLog") })
    }

    /// Begins a log of the writes to `ranges`, and returns what one entry stands for, in bytes: `wanted`
    /// if that is a power of two between a page and 1 GiB.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is a log.
    pub(crate) fn start(&self, ranges: KVec<Range>, wanted: u64) -> Result<u64> {
        let mut slot = self.log.lock();
        if slot.is_some() {
            return Err(EINVAL);
        }
        let log = Log::new(ranges, wanted);
        let page_size = 1 << log.shift;
        *slot = Some(log);
        Ok(page_size)
    }

    /// Ends the log, if there is one.
    pub(crate) fn stop(&self) {
        let log = self.log.lock().take();
        drop(log);
    }

    /// Whether there is a log.
    pub(crate) fn is_active(&self) -> bool {
        self.log.lock().is_some()
    }

    /// Notes that `len` bytes from `iova` on were written.
    pub(crate) fn wrote(&self, iova: u64, len: usize) {
        if let Some(log) = &mut *self.log.lock() {
            log.wrote(iova, len);
        }
    }

    /// Tells `f` what was written between `first` and `last`, in pieces, each with its first address and
    /// its length, and forgets it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no log, `ENOMEM` if it isn't complete; what `f` says.
    pub(crate) fn report(
        &self,
        mut first: u64,
        last: u64,
        mut f: impl FnMut(u64, u64) -> Result,
    ) -> Result {
        loop {
            // `f` is called without the lock: it accesses the program's memory.
            let taken = match &mut *self.log.lock() {
                Some(log) => log.take(first, last)?,
                None => return Err(EINVAL),
            };
            let Some((start, end)) = taken else {
                return Ok(());
            };
            f(start, end - start + 1)?;
            match end.checked_add(1) {
                Some(next) if next <= last => first = next,
                _ => return Ok(()),
            }
        }
    }
}

/// Entries that are kept together.
const CHUNK: u64 = 1 << CHUNK_SHIFT;
const CHUNK_SHIFT: u32 = 12;

/// A bit for each entry.
type Chunk = [u64; (CHUNK / 64) as usize];

/// A log. Only what was written takes memory.
struct Log {
    ranges: KVec<Range>,
    /// An entry stands for so many bytes, as a power of two.
    shift: u32,
    /// By the number of their first entry, shifted by [`CHUNK_SHIFT`].
    chunks: RBTree<u64, Chunk>,
    /// Whether something is missing, since there was no memory for it.
    incomplete: bool,
}

impl Log {
    const SMALLEST: u64 = PAGE_SIZE as u64;
    /// So that reporting an entry in pieces of a page doesn't take long.
    const LARGEST: u64 = 1 << 30;

    fn new(ranges: KVec<Range>, wanted: u64) -> Self {
        let page_size = match wanted.is_power_of_two() {
            true => wanted.clamp(Self::SMALLEST, Self::LARGEST),
            false => Self::SMALLEST,
        };
        Self {
            ranges,
            shift: page_size.trailing_zeros(),
            chunks: RBTree::new(),
            incomplete: false,
        }
    }

    fn wrote(&mut self, iova: u64, len: usize) {
        if len == 0 {
            return;
        }
        let written = Range {
            start: iova,
            last: iova.saturating_add(len as u64 - 1),
        };
        for i in 0..self.ranges.len() {
            let range = self.ranges[i];
            if range.overlaps(written) {
                let first = written.start.max(range.start) >> self.shift;
                let last = written.last.min(range.last) >> self.shift;
                (first..=last).for_each(|entry| self.enter(entry));
            }
        }
    }

    fn enter(&mut self, entry: u64) {
        let (number, bit) = (entry >> CHUNK_SHIFT, entry % CHUNK);
        if self.chunks.get(&number).is_none() {
            let empty = [0; (CHUNK / 64) as usize];
            let created = self
                .chunks
                .try_create_and_insert(number, empty, GFP_KERNEL_ACCOUNT);
            self.incomplete |= created.is_err();
        }
        if let Some(chunk) = self.chunks.get_mut(&number) {
            chunk[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }

    /// Takes the first piece out that was written between `first` and `last`: returns its first and its
    /// last address. An entry that is only in part between them stays for the rest of it.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if something is missing.
    fn take(&mut self, first: u64, last: u64) -> Result<Option<(u64, u64)>> {
        if self.incomplete {
            return Err(ENOMEM);
        }
        let (shift, last_entry) = (self.shift, last >> self.shift);
        let whole = |entry: u64| {
            let start = entry << shift;
            first <= start && start + ((1 << shift) - 1) <= last
        };
        let mut from = first >> shift;
        let mut cursor = self.chunks.cursor_lower_bound_mut(&(from >> CHUNK_SHIFT));
        while let Some(mut current) = cursor {
            let (&number, chunk) = current.current_mut();
            let base = number << CHUNK_SHIFT;
            from = from.max(base);
            if from > last_entry {
                break;
            }
            if let Some((start, end)) = run(chunk, from - base, (last_entry - base).min(CHUNK - 1))
            {
                for bit in start..=end {
                    if whole(base + bit) {
                        chunk[(bit / 64) as usize] &= !(1 << (bit % 64));
                    }
                }
                let end = (base + end << shift) + ((1 << shift) - 1);
                return Ok(Some((first.max(base + start << shift), last.min(end))));
            }
            cursor = current.move_next();
        }
        Ok(None)
    }
}

/// The first bits in succession that are set, of those from `from` to `to`: the first and the last one.
fn run(chunk: &Chunk, from: u64, to: u64) -> Option<(u64, u64)> {
    let is_set = |bit: u64| chunk[(bit / 64) as usize] >> (bit % 64) & 1 == 1;
    let mut start = from;
    while start <= to && !is_set(start) {
        // A word without any is passed over at once.
        let empty = chunk[(start / 64) as usize] == 0;
        start = if empty {
            (start / 64 + 1) * 64
        } else {
            start + 1
        };
    }
    if start > to {
        return None;
    }
    let end = (start + 1..=to).find(|&bit| !is_set(bit));
    Some((start, end.map_or(to, |bit| bit - 1)))
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_mdev_dma_log)]
mod tests {
    use super::*;

    const PAGE: u64 = PAGE_SIZE as u64;

    fn log(ranges: &[Range], wanted: u64) -> Result<Log> {
        let mut all = KVec::new();
        all.extend_from_slice(ranges, GFP_KERNEL)?;
        Ok(Log::new(all, wanted))
    }

    /// Everything between two addresses.
    fn all(log: &mut Log, mut first: u64, last: u64) -> Result<KVec<(u64, u64)>> {
        let mut pieces = KVec::new();
        while let Some((start, end)) = log.take(first, last)? {
            pieces.push((start, end), GFP_KERNEL)?;
            match end.checked_add(1) {
                Some(next) if next <= last => first = next,
                _ => break,
            }
        }
        Ok(pieces)
    }

    #[test]
    fn pages_are_reported_once() -> Result {
        let mut log = log(&[Range::ALL], PAGE)?;
        log.wrote(5 * PAGE + 17, 1);
        log.wrote(6 * PAGE, 2 * PAGE_SIZE);
        log.wrote(100 * PAGE - 1, 2);
        log.wrote(0, 0);
        let pieces = [(5 * PAGE, 8 * PAGE - 1), (99 * PAGE, 101 * PAGE - 1)];
        assert_eq!(*all(&mut log, 0, u64::MAX)?, pieces);
        assert_eq!(*all(&mut log, 0, u64::MAX)?, [(0, 0); 0]);
        Ok(())
    }

    #[test]
    fn only_what_was_asked_for_is_forgotten() -> Result {
        let mut log = log(&[Range::ALL], PAGE)?;
        log.wrote(0, 10 * PAGE_SIZE);
        assert_eq!(
            *all(&mut log, 2 * PAGE, 4 * PAGE - 1)?,
            [(2 * PAGE, 4 * PAGE - 1)]
        );
        let rest = [(0, 2 * PAGE - 1), (4 * PAGE, 10 * PAGE - 1)];
        assert_eq!(*all(&mut log, 0, u64::MAX)?, rest);
        Ok(())
    }

    #[test]
    fn an_entry_stays_until_it_is_asked_for_as_a_whole() -> Result {
        let mut log = log(&[Range::ALL], 4 * PAGE)?;
        log.wrote(5 * PAGE, 1);
        let half = [(4 * PAGE, 6 * PAGE - 1)];
        assert_eq!(*all(&mut log, 0, 6 * PAGE - 1)?, half);
        let other = [(6 * PAGE, 8 * PAGE - 1)];
        assert_eq!(*all(&mut log, 6 * PAGE, 20 * PAGE)?, other);
        let whole = [(4 * PAGE, 8 * PAGE - 1)];
        assert_eq!(*all(&mut log, 0, 20 * PAGE)?, whole);
        assert_eq!(*all(&mut log, 0, u64::MAX)?, [(0, 0); 0]);
        Ok(())
    }

    #[test]
    fn what_is_outside_of_the_ranges_is_not_noted() -> Result {
        let ranges = [
            Range::of_size(2 * PAGE, PAGE)?,
            Range::of_size(5 * PAGE, PAGE)?,
        ];
        let mut log = log(&ranges, PAGE)?;
        log.wrote(0, 10 * PAGE_SIZE);
        let pieces = [(2 * PAGE, 3 * PAGE - 1), (5 * PAGE, 6 * PAGE - 1)];
        assert_eq!(*all(&mut log, 0, u64::MAX)?, pieces);
        Ok(())
    }

    #[test]
    fn chunks_and_both_ends() -> Result {
        let mut log = log(&[Range::ALL], PAGE)?;
        log.wrote(u64::MAX, 1);
        log.wrote((CHUNK - 1) * PAGE, 2 * PAGE_SIZE);
        log.wrote(0, 1);
        let pieces = [
            (0, PAGE - 1),
            ((CHUNK - 1) * PAGE, CHUNK * PAGE - 1),
            (CHUNK * PAGE, (CHUNK + 1) * PAGE - 1),
            (u64::MAX - (PAGE - 1), u64::MAX),
        ];
        assert_eq!(*all(&mut log, 0, u64::MAX)?, pieces);
        assert_eq!(*all(&mut log, 0, u64::MAX)?, [(0, 0); 0]);
        Ok(())
    }

    #[test]
    fn sizes_that_are_none_become_some() -> Result {
        for (wanted, shift) in [
            (0, 12),
            (1, 12),
            (4095, 12),
            (PAGE, 12),
            (2 * PAGE, 13),
            (3 * PAGE, 12),
            (1 << 30, 30),
            (1 << 63, 30),
            (u64::MAX, 12),
        ] {
            assert_eq!(log(&[], wanted)?.shift, shift);
        }
        Ok(())
    }
}
