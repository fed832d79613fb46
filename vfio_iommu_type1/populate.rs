// SPDX-License-Identifier: GPL-2.0

//! Pins user memory and maps it in the IOMMU.

mod pace;

use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    },
};

use iommu_group::ranges::Range;

use kernel_ext::{
    extent::Extent,
    iommu::{
        Access,
        Frames,
        Mapping, //
    },
    mm::{
        cond_resched,
        fatal_signal_pending,
        Charge,
        FrameRun,
        PinBatch,
        PinnedRun, //
    },
};

use crate::{
    refusal::{
        because,
        Granted,
        Refusal, //
    },
    space::Vaddr,
    DISABLE_HUGEPAGES, //
};

use self::pace::Pace;

/// The maximum number of pages per IOMMU map call, unless hugepages are disabled.
const RUN: usize = Extent::MAX_PAGES as usize;

/// The maximum number of pages to charge in advance. Charging waits for threads that fault in
/// memory, so it is done rarely.
const AHEAD: usize = (128 << 20) / PAGE_SIZE;

/// The result of [`populate`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Populated {
    /// All pages are mapped.
    All,
    /// The pages exceed the process's limit on locked memory. Concurrent requests may have charged
    /// pages that they will uncharge again.
    OverLimit,
}

/// Pins `size` bytes of the calling process's memory at `vaddr`, adds them to `mapping` and
/// charges them.
///
/// Device registers and the zero page are not charged. `alone` says that no other request of the
/// container runs: then it is an error to exceed the limit.
///
/// # Errors
///
/// `EFAULT` if there is no memory at an address, or it cannot be pinned; `ENOMEM` over the limit;
/// `EINTR` if the task is being killed; those of the IOMMU. The pages that were added stay in
/// `mapping`, which the caller drops.
pub(crate) fn populate(
    mapping: &mut Mapping,
    charge: &mut Charge,
    vaddr: Vaddr,
    size: u64,
    alone: bool,
) -> Granted<Populated> {
    let pages = size as usize / PAGE_SIZE;
    let start = mapping.iova();
    // The pages that drivers have pinned before are already charged.
    let before = charge.pages();
    let mut work = Populate {
        mapping,
        batch: PinBatch::inline(),
        pace: Pace::new(pages),
        pending: None,
        run: if DISABLE_HUGEPAGES.get() { 1 } else { RUN },
        charged: 0,
        ahead: 0,
    };
    let write = work.mapping.prot().contains(Access::Write);
    let mut done = 0;
    while done < pages {
        if fatal_signal_pending() {
            return Err(Refusal::charging(EINTR));
        }
        let place = Range {
            start: start + (done * PAGE_SIZE) as u64,
            last: start + (size - 1),
        };
        work.ahead = charge.pages().saturating_sub(work.charged);
        let stepped = work.step(vaddr.get() + done * PAGE_SIZE, pages - done, write);
        // If the step failed, nothing follows, so nothing is charged in advance.
        let mut rest = 0;
        if let Ok(added) = stepped {
            done += added;
            rest = (pages - done).min(AHEAD);
        }
        let missing = work.charged.saturating_sub(charge.pages());
        match add_charge(charge, missing, rest) {
            Err(e) if e == ENOMEM && !alone => return Ok(Populated::OverLimit),
            charged => charged.map_err(|e| {
                if e == ENOMEM {
                    let own = charge.pages().saturating_sub(before);
                    charge.owner().warn_limit(own + missing, own);
                }
                Refusal::charging(e).in_place(place)
            })?,
        }
        stepped.map_err(|refusal| refusal.in_place(place))?;
        cond_resched();
    }
    work.flush()?;
    let charged = work.charged.max(before);
    charge.sub(charge.pages().saturating_sub(charged));
    Ok(Populated::All)
}

/// Charges `missing` pages, if not 0, and `ahead` more if the limit allows it.
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

/// What is mapped at a user virtual address.
enum Found {
    /// Memory: the number of pages, which are now pinned.
    Memory(usize),
    /// Registers of a device.
    Registers(FrameRun),
}

/// The state of [`populate`].
struct Populate<'a> {
    mapping: &'a mut Mapping,
    batch: PinBatch<'static>,
    pace: Pace,
    /// Pages that are not passed to the IOMMU yet, because the next pages may be contiguous to
    /// them.
    pending: Option<PinnedRun>,
    /// The maximum number of pages per IOMMU map call.
    run: usize,
    /// The number of pages that count as locked memory.
    charged: usize,
    /// The number of further pages that are already charged. Beyond that, only a few pages at a
    /// time are pinned and then charged.
    ahead: usize,
}

impl Populate<'_> {
    /// Adds up to `limit` pages at `vaddr`. Returns the number of pages.
    ///
    /// The first batch is small. A larger one is allocated once the address has turned out to be
    /// memory.
    fn step(&mut self, vaddr: usize, limit: usize, write: bool) -> Granted<usize> {
        match self.find(vaddr, limit, write) {
            Ok(Found::Memory(pinned)) => {
                while let Some(run) = self.batch.take_run(self.run) {
                    if run.is_charged() {
                        self.charged += run.count();
                    }
                    self.add(run)?;
                }
                self.batch.try_grow(self.pace.most().min(limit - pinned));
                Ok(pinned)
            }
            Ok(Found::Registers(run)) => {
                let count = run.count();
                self.flush()?;
                self.append(Frames::Registers(run))?;
                Ok(count)
            }
            Err(e) => Err(because(c"no memory there, or none that can be pinned")(e)),
        }
    }

    /// Finds out what is mapped at `vaddr`, up to `limit` pages. Memory is pinned.
    fn find(&mut self, vaddr: usize, limit: usize, write: bool) -> Result<Found> {
        let e = match self.fill(vaddr, limit, write) {
            Ok(pinned) => return Ok(Found::Memory(pinned)),
            Err(e) => e,
        };
        if let Some(run) = FrameRun::find(vaddr, limit.min(self.run), write)? {
            return Ok(Found::Registers(run));
        }
        // Two cases are left in which `fill` fails although there is memory that devices may
        // access. The protection keys of this thread may forbid access; they do not apply to
        // devices. Or the range may extend beyond the end of the user address space; the pages up
        // to there can be pinned.
        let current = kernel::current!();
        let limit = limit.min(self.ahead.max(PinBatch::INLINE));
        current.mm().map_or(Err(e), |mm| {
            let pinned = self.batch.fill_remote(mm, vaddr, limit, write)?;
            Ok(Found::Memory(pinned))
        })
    }

    /// Pins up to `limit` pages, but at most one batch. Returns the number of pages.
    ///
    /// Unless `limit` or the capacity is smaller, a call ends at a multiple of the batch size, and
    /// thus at the end of a huge page if the batch is that large. Two calls then do not walk the
    /// same huge page.
    fn fill(&mut self, vaddr: usize, limit: usize, write: bool) -> Result<usize> {
        let limit = limit.min(self.ahead.max(PinBatch::INLINE));
        let pages = self.pace.pages();
        let pages = pages - vaddr / PAGE_SIZE % pages;
        if limit <= pages || self.batch.capacity() < pages {
            return self.batch.fill(vaddr, limit, write);
        }
        let start = Instant::<Monotonic>::now();
        let pinned = self.batch.fill(vaddr, pages, write)?;
        self.pace.note(start.elapsed());
        Ok(pinned)
    }

    /// Queues pinned pages for the IOMMU.
    fn add(&mut self, run: PinnedRun) -> Granted {
        let run = match self.pending.as_mut() {
            None => run,
            Some(pending) => match pending.join(run, self.run) {
                Ok(()) => return Ok(()),
                Err(run) => run,
            },
        };
        self.flush()?;
        self.pending = Some(run);
        Ok(())
    }

    /// Passes the queued pages to the IOMMU.
    fn flush(&mut self) -> Granted {
        match self.pending.take() {
            Some(run) => self.append(Frames::Memory(run)),
            None => Ok(()),
        }
    }

    /// Passes `frames` to the IOMMU.
    fn append(&mut self, frames: Frames) -> Granted {
        self.mapping
            .append(frames)
            .map_err(because(c"the IOMMU can't map it"))
    }
}
