// SPDX-License-Identifier: GPL-2.0

//! DMA logging of `<linux/vfio.h>`: which memory of a process a device has written to.
//!
//! A Rust driver accesses that memory only through this crate. The crate logs the writes, so that a
//! driver cannot forget to. A write is logged when it is finished. If a report misses a write that
//! is in progress, the next report contains it. The same applies to a log that starts while a write
//! is in progress.

#[allow(unsafe_code)]
mod abi;
mod entries;

use kernel::{
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::Mutex, //
};
use kernel_ext::{
    iova::Range,
    iova_bitmap,
    mm::MemoryCgroup, //
};

use entries::{
    Entries,
    Span,
    Spare,
    Taken, //
};

pub(crate) use abi::LogOps;

/// Whether the core in use can report the content of a log. The core of this project, `own_core`,
/// always can. The kernel's core can only if the kernel has `struct iova_bitmap`. Otherwise it
/// would start a log but never report, which is worse than no log.
pub(crate) fn can_be_reported(own_core: bool) -> bool {
    iova_bitmap::KERNELS || own_core
}

/// The log of a device. It is active while DMA logging is.
#[pin_data]
pub(crate) struct DmaLogging {
    #[pin]
    current: Mutex<Current>,
}

struct Current {
    log: Option<Log>,
    /// The number of logs that have been started, which is the number of the newest log.
    begun: u64,
}

impl DmaLogging {
    /// Creates an inactive log.
    pub(crate) fn new() -> impl PinInit<Self> {
        let none = Current {
            log: None,
            begun: 0,
        };
        pin_init!(Self { current <- new_mutex!(none, "vfio_mdev::DmaLogging") })
    }

    /// Starts a log of the writes to `ranges`. Returns the granularity of the log in bytes:
    /// `wanted` if it is a power of two between the page size and 1 GiB. The memory of the log is
    /// charged to the calling process.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a log is active.
    pub(crate) fn start(&self, ranges: KVec<Range>, wanted: u64) -> Result<u64> {
        let mut current = self.current.lock();
        if current.log.is_some() {
            return Err(EINVAL);
        }
        let log = Log::new(ranges, wanted);
        let page_size = 1 << log.shift;
        current.log = Some(log);
        current.begun = current.begun.wrapping_add(1);
        Ok(page_size)
    }

    /// Stops the log, if it is active.
    pub(crate) fn stop(&self) {
        let log = self.current.lock().log.take();
        drop(log);
    }

    /// Whether a log is active.
    pub(crate) fn is_active(&self) -> bool {
        self.current.lock().log.is_some()
    }

    /// Logs that `len` bytes at `iova` were written, or may have been.
    pub(crate) fn wrote(&self, iova: u64, len: usize) {
        if let Some(log) = &mut self.current.lock().log {
            log.wrote(iova, len);
        }
    }

    /// Calls `f` for all logged ranges in `asked`, with the address and the length of each range,
    /// and clears them. Clears nothing on error.
    ///
    /// # Errors
    ///
    /// `EINVAL` if no log is active; `ENOMEM`, also if the log is incomplete; the errors of `f`.
    pub(crate) fn report(&self, asked: Option<Range>, f: impl FnMut(u64, u64) -> Result) -> Result {
        let current = self.current.lock();
        let (number, shift) = (current.begun, current.log.as_ref().ok_or(EINVAL)?.shift);
        drop(current);
        let Some(asked) = asked else {
            return Ok(());
        };
        let mut reported = Entries::new();
        let span = Span::new(asked.start, asked.last, shift);
        self.take_all(number, &span, &mut reported, f)
            .inspect_err(|_| {
                // If another log was started meanwhile, drop the entries.
                self.with_log(number, |log| log.entries.put_back(reported));
            })
    }

    /// Takes the entries in `span` out of the log, chunk by chunk, and calls `f` for them.
    fn take_all(
        &self,
        number: u64,
        span: &Span,
        reported: &mut Entries,
        mut f: impl FnMut(u64, u64) -> Result,
    ) -> Result {
        let mut spare = Spare::new()?;
        let mut next = span.first_chunk();
        loop {
            let taken = self.with_log(number, |log| log.take(span, next, &mut spare));
            let Some(taken) = taken.ok_or(EINVAL)?? else {
                return Ok(());
            };
            let chunk = reported.put(taken);
            // The lock is not held here because `f` accesses the memory of the process.
            reported.each_piece(chunk, span, &mut f)?;
            next = chunk + 1;
        }
    }

    /// Calls `f` with the log of this number. Returns `None` if the log was stopped.
    fn with_log<R>(&self, number: u64, f: impl FnOnce(&mut Log) -> R) -> Option<R> {
        let mut current = self.current.lock();
        if current.begun != number {
            return None;
        }
        current.log.as_mut().map(f)
    }
}

/// An active log. Only entries that are not reported yet use memory.
struct Log {
    ranges: KVec<Range>,
    /// The number of bytes that an entry stands for, as a power of two.
    shift: u32,
    entries: Entries,
    /// The control group that is charged for the entries, regardless of the thread that writes.
    payer: MemoryCgroup,
    /// Whether entries are missing because an allocation failed.
    incomplete: bool,
}

impl Log {
    const SMALLEST: u64 = PAGE_SIZE as u64;
    /// Limits the time for reporting one entry in pieces of a page.
    const LARGEST: u64 = 1 << 30;

    fn new(ranges: KVec<Range>, wanted: u64) -> Self {
        let page_size = match wanted.is_power_of_two() {
            true => wanted.clamp(Self::SMALLEST, Self::LARGEST),
            false => Self::SMALLEST,
        };
        Self {
            ranges,
            shift: page_size.trailing_zeros(),
            entries: Entries::new(),
            payer: MemoryCgroup::current(),
            incomplete: false,
        }
    }

    fn wrote(&mut self, iova: u64, len: usize) {
        let Some(before_last) = (len as u64).checked_sub(1) else {
            return;
        };
        let written = Range {
            start: iova,
            last: iova.saturating_add(before_last),
        };
        for range in self.ranges.iter().filter(|range| range.overlaps(written)) {
            let first = written.start.max(range.start) >> self.shift;
            let last = written.last.min(range.last) >> self.shift;
            for entry in first..=last {
                if self.incomplete {
                    return;
                }
                self.incomplete = self.entries.enter(entry, &self.payer).is_err();
            }
        }
    }

    /// Takes a chunk out of the log, see [`Entries::take`].
    ///
    /// # Errors
    ///
    /// `ENOMEM` if entries are missing; those of [`Entries::take`].
    fn take(&mut self, span: &Span, chunk: u64, spare: &mut Spare) -> Result<Option<Taken>> {
        if self.incomplete {
            return Err(ENOMEM);
        }
        self.entries.take(span, chunk, spare)
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_mdev_dma_logging)]
mod tests {
    use super::*;
    use entries::CHUNK;
    use kernel::sync::Arc;

    const PAGE: u64 = PAGE_SIZE as u64;

    fn log(ranges: &[Range], wanted: u64) -> Result<Arc<DmaLogging>> {
        let mut all = KVec::new();
        all.extend_from_slice(ranges, GFP_KERNEL)?;
        let log = Arc::pin_init(DmaLogging::new(), GFP_KERNEL)?;
        log.start(all, wanted)?;
        Ok(log)
    }

    /// Returns everything between two addresses, as the first and the last address of each piece.
    fn all(log: &DmaLogging, first: u64, last: u64) -> Result<KVec<(u64, u64)>> {
        let mut pieces: KVec<(u64, u64)> = KVec::new();
        log.report(Some(Range { start: first, last }), |start, length| {
            let end = start + (length - 1);
            match pieces.last_mut() {
                // Merge adjacent pieces, so that chunk boundaries don't matter.
                Some(piece) if piece.1.checked_add(1) == Some(start) => piece.1 = end,
                _ => pieces.push((start, end), GFP_KERNEL)?,
            }
            Ok(())
        })?;
        Ok(pieces)
    }

    fn is_empty(log: &DmaLogging) -> bool {
        let current = log.current.lock();
        current
            .log
            .as_ref()
            .is_none_or(|log| log.entries.is_empty())
    }

    #[test]
    fn pages_are_reported_once() -> Result {
        let log = log(&[Range::ALL], PAGE)?;
        log.wrote(5 * PAGE + 17, 1);
        log.wrote(6 * PAGE, 2 * PAGE_SIZE);
        log.wrote(100 * PAGE - 1, 2);
        log.wrote(0, 0);
        let pieces = [(5 * PAGE, 8 * PAGE - 1), (99 * PAGE, 101 * PAGE - 1)];
        assert_eq!(*all(&log, 0, u64::MAX)?, pieces);
        assert_eq!(*all(&log, 0, u64::MAX)?, [(0, 0); 0]);
        Ok(())
    }

    #[test]
    fn only_what_was_asked_for_is_forgotten() -> Result {
        let log = log(&[Range::ALL], PAGE)?;
        log.wrote(0, 10 * PAGE_SIZE);
        assert_eq!(
            *all(&log, 2 * PAGE, 4 * PAGE - 1)?,
            [(2 * PAGE, 4 * PAGE - 1)]
        );
        let rest = [(0, 2 * PAGE - 1), (4 * PAGE, 10 * PAGE - 1)];
        assert_eq!(*all(&log, 0, u64::MAX)?, rest);
        Ok(())
    }

    #[test]
    fn an_entry_stays_until_it_is_asked_for_as_a_whole() -> Result {
        let log = log(&[Range::ALL], 4 * PAGE)?;
        log.wrote(5 * PAGE, 1);
        let half = [(4 * PAGE, 6 * PAGE - 1)];
        assert_eq!(*all(&log, 0, 6 * PAGE - 1)?, half);
        let other = [(6 * PAGE, 8 * PAGE - 1)];
        assert_eq!(*all(&log, 6 * PAGE, 20 * PAGE)?, other);
        let whole = [(4 * PAGE, 8 * PAGE - 1)];
        assert_eq!(*all(&log, 0, 20 * PAGE)?, whole);
        assert_eq!(*all(&log, 0, u64::MAX)?, [(0, 0); 0]);
        Ok(())
    }

    #[test]
    fn what_is_outside_of_the_ranges_is_not_noted() -> Result {
        let ranges = [
            Range::of_size(2 * PAGE, PAGE)?,
            Range::of_size(5 * PAGE, PAGE)?,
        ];
        let log = log(&ranges, PAGE)?;
        log.wrote(0, 10 * PAGE_SIZE);
        let pieces = [(2 * PAGE, 3 * PAGE - 1), (5 * PAGE, 6 * PAGE - 1)];
        assert_eq!(*all(&log, 0, u64::MAX)?, pieces);
        Ok(())
    }

    #[test]
    fn chunks_and_both_ends() -> Result {
        let log = log(&[Range::ALL], PAGE)?;
        log.wrote(u64::MAX, 1);
        log.wrote((CHUNK - 1) * PAGE, 2 * PAGE_SIZE);
        log.wrote(0, 1);
        let pieces = [
            (0, PAGE - 1),
            ((CHUNK - 1) * PAGE, (CHUNK + 1) * PAGE - 1),
            (u64::MAX - (PAGE - 1), u64::MAX),
        ];
        assert_eq!(*all(&log, 0, u64::MAX)?, pieces);
        assert_eq!(*all(&log, 0, u64::MAX)?, [(0, 0); 0]);
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
            let log = Arc::pin_init(DmaLogging::new(), GFP_KERNEL)?;
            assert_eq!(log.start(KVec::new(), wanted), Ok(1 << shift));
            assert_eq!(log.start(KVec::new(), wanted), Err(EINVAL));
        }
        Ok(())
    }

    /// Pages in four chunks. A report of everything but a page at each end covers two of these
    /// chunks completely.
    const SCATTERED: [u64; 6] = [0, 1, CHUNK, 2 * CHUNK + 5, 4 * CHUNK - 2, 4 * CHUNK - 1];

    fn scattered() -> Result<Arc<DmaLogging>> {
        let log = log(&[Range::ALL], PAGE)?;
        for page in SCATTERED {
            log.wrote(page * PAGE, 1);
        }
        Ok(log)
    }

    #[test]
    fn a_report_that_fails_forgets_nothing() -> Result {
        let complete = all(&*scattered()?, 0, u64::MAX)?;
        let inner = Range {
            start: PAGE,
            last: (4 * CHUNK - 1) * PAGE - 1,
        };
        for asked in [Range::ALL, inner] {
            for good in 0..4 {
                let log = scattered()?;
                let mut count = 0;
                let failed = log.report(Some(asked), |_, _| {
                    count += 1;
                    (count <= good).then_some(()).ok_or(EFAULT)
                });
                assert_eq!(failed, Err(EFAULT));
                assert_eq!(*all(&log, 0, u64::MAX)?, *complete);
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_written_during_a_report_is_kept() -> Result {
        for outcome in [Ok(()), Err(EFAULT)] {
            let log = scattered()?;
            let result = log.report(Some(Range::ALL), |start, _| {
                log.wrote(start, 1);
                log.wrote(9 * PAGE, 1);
                outcome
            });
            assert_eq!(result, outcome);
            let pages = all(&log, 9 * PAGE, 10 * PAGE - 1)?;
            assert_eq!(*pages, [(9 * PAGE, 10 * PAGE - 1)]);
            let first = all(&log, 0, PAGE - 1)?;
            assert_eq!(*first, [(0, PAGE - 1)]);
        }
        Ok(())
    }

    #[test]
    fn a_log_that_begins_during_a_report_is_another_one() -> Result {
        let log = scattered()?;
        let result = log.report(Some(Range::ALL), |_, _| {
            log.stop();
            log.start(KVec::from_elem(Range::ALL, 1, GFP_KERNEL)?, 1 << 20)?;
            Ok(())
        });
        assert_eq!(result, Err(EINVAL));
        assert!(is_empty(&log));
        Ok(())
    }

    #[test]
    fn memory_is_freed_when_it_is_reported() -> Result {
        let log = scattered()?;
        all(&log, 0, u64::MAX)?;
        assert!(is_empty(&log));
        // Report parts that are smaller than a chunk.
        let log = scattered()?;
        for part in 0..8 {
            assert!(!is_empty(&log));
            let first = part * CHUNK / 2 * PAGE;
            all(&log, first, first + CHUNK / 2 * PAGE - 1)?;
        }
        assert!(is_empty(&log));
        Ok(())
    }
}
