// SPDX-License-Identifier: GPL-2.0

//! Pins user memory and maps it in the IOMMU.

use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
};

use kernel_ext::{
    extent::Extent,
    iommu::{
        Access,
        Frames,
        Mapping, //
    },
    iova::Range,
    mm::{
        cond_resched,
        fatal_signal_pending,
        Charge,
        FrameRun,
        PinBatch,
        PinnedRun, //
    }, //
};

use crate::{
    error::{
        RequestError,
        RequestResult, //
    },
    pages::DmaPages,
    space::Vaddr,
    DISABLE_HUGEPAGES, //
};

/// The maximum number of pages per IOMMU map call, unless hugepages are disabled.
const MAX_RUN: usize = Extent::MAX_PAGES as usize;

/// The maximum number of pages to charge in advance. Charging waits for threads that fault in
/// memory, so it is done rarely.
const MAX_AHEAD: usize = (128 << 20) / PAGE_SIZE;

/// The result of [`DmaPages::pin_map`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PinMapResult {
    /// All pages are mapped.
    Complete,
    /// The pages exceed the process's limit on locked memory. Concurrent requests may have charged
    /// pages that they will uncharge again.
    OverLimit,
}

impl DmaPages {
    /// Pins the calling process's memory at `vaddr`, maps it in the IOMMU and charges it. The mapping
    /// has `size` bytes, none of which is mapped yet.
    ///
    /// MMIO and the zero page are not charged. If `is_alone`, no other request of the container
    /// runs, and it is an error to exceed the limit.
    ///
    /// # Errors
    ///
    /// `EFAULT` if there is no memory at an address, or it cannot be pinned; `ENOMEM` over the
    /// limit; `EINTR` if the task is being killed; those of the IOMMU. Some pages may be mapped
    /// then.
    pub(super) fn pin_map(
        &mut self,
        vaddr: Vaddr,
        size: u64,
        is_alone: bool,
    ) -> RequestResult<PinMapResult> {
        let (mapping, charge) = (&mut self.mapping, &mut self.charge);
        let start = mapping.iova();
        let pages = size as usize / PAGE_SIZE;
        // The pages that drivers have pinned before are already charged.
        let before = charge.pages();
        let mut pinner = Pinner::new(pages, mapping.prot().contains(Access::Write));
        let mut done = 0;
        while done < pages {
            if fatal_signal_pending() {
                return Err(RequestError::charge(EINTR));
            }
            let rest = Range {
                start: start + done as u64 * PAGE_SIZE as u64,
                last: start + (size - 1),
            };
            let ahead = charge.pages().saturating_sub(pinner.locked);
            let mmio = pinner
                .pin(vaddr.get() + done * PAGE_SIZE, pages - done, ahead)
                .map_err(|e| {
                    RequestError::new(e, c"the pages at the vaddr cannot be pinned").at(rest)
                })?;
            done += mmio.as_ref().map_or(pinner.batch.len(), FrameRun::count);
            let mapped = pinner.map(mapping, mmio);
            // Report a failed charge even if mapping has failed too.
            let missing = pinner.locked.saturating_sub(charge.pages());
            let ahead = mapped.map_or(0, |()| (pages - done).min(MAX_AHEAD));
            match add_charge(charge, missing, ahead) {
                Err(e) if e == ENOMEM && !is_alone => return Ok(PinMapResult::OverLimit),
                charged => charged.map_err(|e| {
                    if e == ENOMEM {
                        let own = charge.pages().saturating_sub(before);
                        charge.owner().warn_limit(own + missing, own);
                    }
                    RequestError::charge(e).at(rest)
                })?,
            }
            mapped.map_err(|e| RequestError::new(e, c"iommu_map() failed").at(rest))?;
            cond_resched();
        }
        // A map of one run does not reach the IOMMU before it is charged.
        pinner
            .map_pending(mapping)
            .map_err(|e| RequestError::new(e, c"iommu_map() failed"))?;
        let charged = pinner.locked.max(before);
        charge.sub(charge.pages().saturating_sub(charged));
        Ok(PinMapResult::Complete)
    }
}

/// Charges `missing` pages, and `ahead` more if the limit allows it. If `missing` is 0, does
/// nothing.
///
/// # Errors
///
/// Those of [`Charge::try_add`].
fn add_charge(charge: &mut Charge, missing: usize, ahead: usize) -> Result {
    if missing == 0 {
        return Ok(());
    }
    match charge.try_add(missing + ahead) {
        Err(e) if e == ENOMEM && ahead != 0 => charge.try_add(missing),
        charged => charged,
    }
}

/// Pins pages batch by batch and maps them run by run.
struct Pinner {
    batch: PinBatch<'static>,
    batch_size: BatchSize,
    /// Pages that are not mapped yet, because the next batch may continue them.
    pending: Option<PinnedRun>,
    /// The maximum number of pages per IOMMU map call.
    max_run: usize,
    /// The number of pages that count as locked memory.
    locked: usize,
    write: bool,
}

impl Pinner {
    /// Creates the state for `pages` pages, pinned for writing if `write`.
    fn new(pages: usize, write: bool) -> Self {
        Self {
            batch: PinBatch::inline(),
            batch_size: BatchSize::new(pages),
            pending: None,
            max_run: if DISABLE_HUGEPAGES.get() { 1 } else { MAX_RUN },
            locked: 0,
            write,
        }
    }

    /// Pins up to `limit` pages at `vaddr`, but at most one batch. `ahead` pages are charged in
    /// advance; beyond that, only a few pages at a time are pinned and then charged. Returns MMIO
    /// instead if it is mapped there.
    ///
    /// Unless `limit`, `ahead` or the capacity is smaller, a call ends at a multiple of the batch
    /// size, and thus at the end of a huge page if the batch is that large. Two calls then do not
    /// walk the same huge page.
    ///
    /// # Errors
    ///
    /// Those of [`PinBatch::fill`] and [`FrameRun::find`].
    fn pin(&mut self, vaddr: usize, limit: usize, ahead: usize) -> Result<Option<FrameRun>> {
        // The first batch is small. A larger one is allocated once `vaddr` has turned out to be
        // memory.
        if self.pending.is_some() {
            self.batch.try_grow(self.batch_size.most.min(limit));
        }
        let allowed = limit.min(ahead.max(PinBatch::INLINE));
        let aligned = self.batch_size.pages - vaddr / PAGE_SIZE % self.batch_size.pages;
        let pinned = if allowed <= aligned || self.batch.capacity() < aligned {
            self.batch.fill(vaddr, allowed, self.write)
        } else {
            let start = Instant::<Monotonic>::now();
            let pinned = self.batch.fill(vaddr, aligned, self.write);
            pinned.inspect(|_| self.batch_size.adapt(start.elapsed()))
        };
        let Err(e) = pinned else {
            return Ok(None);
        };
        let mmio = FrameRun::find(vaddr, limit.min(self.max_run), self.write)?;
        if mmio.is_some() {
            return Ok(mmio);
        }
        // Two cases are left in which `fill` fails although there is memory that devices may
        // access. The protection keys of this thread may forbid access; they do not apply to
        // devices. Or the range may extend beyond the end of the user address space; the pages up
        // to there can be pinned.
        let current = kernel::current!();
        let mm = current.mm().ok_or(e)?;
        self.batch.fill_remote(mm, vaddr, allowed, self.write)?;
        Ok(None)
    }

    /// Maps the pages of the batch, and `mmio`. Keeps the last run of pages unless MMIO follows it.
    ///
    /// # Errors
    ///
    /// Those of [`Mapping::append`].
    fn map(&mut self, mapping: &mut Mapping, mmio: Option<FrameRun>) -> Result {
        while let Some(run) = self.batch.take_run(self.max_run) {
            if run.is_charged() {
                self.locked += run.count();
            }
            let run = match &mut self.pending {
                None => Err(run),
                Some(pending) => pending.join(run, self.max_run),
            };
            if let Err(next) = run {
                if let Some(complete) = self.pending.replace(next) {
                    mapping.append(Frames::Memory(complete))?;
                }
            }
        }
        let Some(mmio) = mmio else {
            return Ok(());
        };
        self.map_pending(mapping)?;
        mapping.append(Frames::Mmio(mmio))
    }

    /// Maps the run that [`map`](Self::map) has kept.
    ///
    /// # Errors
    ///
    /// Those of [`Mapping::append`].
    fn map_pending(&mut self, mapping: &mut Mapping) -> Result {
        let run = self.pending.take();
        run.map_or(Ok(()), |run| mapping.append(Frames::Memory(run)))
    }
}

/// The number of pages to pin with one call, adapted to the duration of previous calls.
///
/// Pinning allocates memory that is not present yet, which takes a thousand times as long as the
/// pinning itself, and holds the process's mmap lock for reading meanwhile. A thread that needs
/// that lock for writing has to wait, even if it only charges a small mapping. A call that takes
/// long is therefore followed by smaller ones.
struct BatchSize {
    /// The maximum number of pages of the next call, at least [`MIN`](Self::MIN).
    pages: usize,
    /// The maximum number of pages per call.
    most: usize,
}

impl BatchSize {
    /// The maximum number of pages per call.
    const MAX: usize = 2048;

    /// The number of pages of the first call: one huge page.
    const FIRST: usize = 512;

    /// The minimum request size, in pages, that justifies a batch of [`MAX`](Self::MAX) pages.
    const MIN_PAGES_FOR_MAX: usize = 8192;

    /// The minimum number of pages per call. Fewer pages do not make a call faster.
    const MIN: usize = 32;

    /// The maximum duration of a call. After a longer one, the number of pages is halved.
    const LONG: Delta = Delta::from_millis(1);

    /// After a call that takes less than this, the number of pages is doubled.
    const SHORT: Delta = Delta::from_micros(250);

    /// Creates the state for a request of `all` pages.
    fn new(all: usize) -> Self {
        Self {
            pages: Self::FIRST,
            most: if all < Self::MIN_PAGES_FOR_MAX {
                Self::FIRST
            } else {
                Self::MAX
            },
        }
    }

    /// Adapts the number of pages to the duration of a call.
    fn adapt(&mut self, duration: Delta) {
        if duration > Self::LONG {
            self.pages = Self::MIN.max(self.pages / 2);
        } else if duration < Self::SHORT {
            self.pages = self.most.min(self.pages * 2);
        }
    }
}

#[kunit_tests(vfio_type1_pin_map)]
mod tests {
    use super::*;

    #[test]
    fn batch_sizes_stay_within_bounds() {
        let (min, first, max) = (BatchSize::MIN, BatchSize::FIRST, BatchSize::MAX);
        for (all, most) in [
            (BatchSize::MIN_PAGES_FOR_MAX - 1, first),
            (BatchSize::MIN_PAGES_FOR_MAX, max),
        ] {
            let mut size = BatchSize::new(all);
            assert_eq!(size.most, most);
            for (millis, expected) in [(0, most), (2, min)] {
                for _ in 0..10 {
                    size.adapt(Delta::from_millis(millis));
                    assert!((min..=most).contains(&size.pages));
                }
                assert_eq!(size.pages, expected);
            }
        }
    }

    #[test]
    fn good_batch_size_is_kept() {
        let mut size = BatchSize::new(BatchSize::MIN_PAGES_FOR_MAX);
        size.adapt(BatchSize::SHORT);
        size.adapt(BatchSize::LONG);
        assert_eq!(size.pages, BatchSize::FIRST);
    }
}
