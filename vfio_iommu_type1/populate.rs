// SPDX-License-Identifier: GPL-2.0

//! Pins a program's memory and hands it to the IOMMU.

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

/// The most pages that go to the IOMMU by one call, unless hugepages are disabled.
const RUN: usize = Extent::MAX_PAGES as usize;

/// How many pages are charged before they are found, at most. Charging waits for those who fault memory
/// in, so it is done rarely.
const AHEAD: usize = (128 << 20) / PAGE_SIZE;

/// What [`populate`] came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Populated {
    /// All pages are there.
    All,
    /// There are more pages than the process may have locked now. Others may have charged some in vain.
    OverLimit,
}

/// Pins `size` bytes of the calling process from `vaddr` on, adds them to `mapping` and charges them.
///
/// Registers of devices and the zero page are free. If `alone`, the container does nothing else
/// meanwhile, and memory over the limit is an error.
///
/// # Errors
///
/// `EFAULT` where there is no memory, or none that may be pinned; `ENOMEM` over the limit; `EINTR` if
/// the task is being killed; those of the IOMMU. What was added stays; the caller drops it.
pub(crate) fn populate(
    mapping: &mut Mapping,
    charge: &mut Charge,
    vaddr: Vaddr,
    size: u64,
    alone: bool,
) -> Granted<Populated> {
    let pages = size as usize / PAGE_SIZE;
    let start = mapping.iova();
    // Pages that drivers have pinned before are charged already.
    let before = charge.pages();
    let mut work = Populate {
        mapping,
        batch: PinBatch::few(),
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
        // What would follow is not charged where it ends.
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

/// Charges `missing` pages, if there are any, and as many as `ahead` more, if they are within the limit.
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

/// What is at an address in the program's memory.
enum Found {
    /// So many pages, which are pinned now.
    Memory(usize),
    /// Registers of a device.
    Registers(FrameRun),
}

/// The work of [`populate`].
struct Populate<'a> {
    mapping: &'a mut Mapping,
    batch: PinBatch<'static>,
    pace: Pace,
    /// Pages for the IOMMU, kept back as long as their neighbours follow.
    pending: Option<PinnedRun>,
    /// The most pages that go to the IOMMU by one call.
    run: usize,
    /// How many of the pages count as locked memory.
    charged: usize,
    /// How many more are charged already. Others are pinned a few at a time, and charged then.
    ahead: usize,
}

impl Populate<'_> {
    /// Adds up to `limit` pages from `vaddr` on. Returns how many.
    ///
    /// The first pages are few: room for more is made once they have turned out to be memory.
    fn step(&mut self, vaddr: usize, limit: usize, write: bool) -> Granted<usize> {
        match self.find(vaddr, limit, write) {
            Ok(Found::Memory(pinned)) => {
                while let Some(run) = self.batch.take_run(self.run) {
                    if run.is_charged() {
                        self.charged += run.count();
                    }
                    self.add(run)?;
                }
                self.batch.prefer_room(self.pace.most().min(limit - pinned));
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

    /// Finds what is at `vaddr`, up to `limit` pages of it. Memory is pinned.
    fn find(&mut self, vaddr: usize, limit: usize, write: bool) -> Result<Found> {
        let e = match self.fill(vaddr, limit, write) {
            Ok(pinned) => return Ok(Found::Memory(pinned)),
            Err(e) => e,
        };
        if let Some(run) = FrameRun::find(vaddr, limit.min(self.run), write)? {
            return Ok(Found::Registers(run));
        }
        // Protection keys of this thread say nothing about devices, and there may be memory up to where
        // a process can't have any.
        let current = kernel::current!();
        let limit = limit.min(self.ahead.max(PinBatch::FEW));
        current.mm().map_or(Err(e), |mm| {
            let pinned = self.batch.fill_remote(mm, vaddr, limit, write)?;
            Ok(Found::Memory(pinned))
        })
    }

    /// Pins up to `limit` pages, not too many at once. Returns how many.
    ///
    /// A call ends where a huge page does, if it is for so many, lest two calls look at the same one.
    fn fill(&mut self, vaddr: usize, limit: usize, write: bool) -> Result<usize> {
        let limit = limit.min(self.ahead.max(PinBatch::FEW));
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

    /// Adds pinned pages.
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

    /// Hands what was kept back to the IOMMU.
    fn flush(&mut self) -> Granted {
        match self.pending.take() {
            Some(run) => self.append(Frames::Memory(run)),
            None => Ok(()),
        }
    }

    /// Hands `frames` to the IOMMU.
    fn append(&mut self, frames: Frames) -> Granted {
        self.mapping
            .append(frames)
            .map_err(because(c"the IOMMU can't map it"))
    }
}
