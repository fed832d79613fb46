// SPDX-License-Identifier: GPL-2.0

//! Memory that devices see.

use kernel::{
    ffi::c_int,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::Arc,
    warn_on, //
};

use crate::{
    extent::{
        Extent,
        Extents, //
    },
    mm::{
        cond_resched,
        FrameRun,
        PinnedRun, //
    }, //
};

use super::{
    Access,
    Domain,
    Domains,
    Prot, //
};

/// What can be mapped for devices.
pub enum Frames {
    /// Pages of memory. The mapping keeps their pins.
    Memory(PinnedRun),
    /// Registers of a device, which nothing holds.
    Registers(FrameRun),
}

impl Frames {
    /// Whether devices may write there, too.
    fn is_write(&self) -> bool {
        match self {
            Self::Memory(run) => run.is_write(),
            Self::Registers(run) => run.is_write(),
        }
    }

    /// The first frame's number, and how many there are.
    fn parts(&self) -> (usize, usize) {
        match self {
            Self::Memory(run) => (run.frame(), run.count()),
            Self::Registers(run) => (run.frame(), run.count()),
        }
    }
}

/// A range of device addresses that grows from its start on; what was added stays mapped, and its
/// pages pinned, until the value is dropped.
///
/// # Invariants
///
/// - Each of `domains` maps the range from the start on to `frames`, in order, and nobody else maps
///   or unmaps there; but what is in the page tables of a retired domain doesn't matter.
/// - A run of `frames` whose flag is set carries the pins of its pages.
pub struct Mapping {
    domains: Arc<Domains>,
    frames: Extents,
    place: Place,
}

const _: () = assert!(size_of::<Mapping>() == 32);

/// The flag of a run whose pages are pinned.
const PINNED: bool = true;

/// Where a mapping starts, a multiple of the page size; below that what devices may do.
#[derive(Clone, Copy)]
struct Place(u64);

impl Place {
    fn new(iova: u64, prot: Prot) -> Self {
        Self(iova & !(PAGE_SIZE as u64 - 1) | u64::from(u32::from(prot)))
    }

    fn iova(self) -> u64 {
        self.0 & !(PAGE_SIZE as u64 - 1)
    }

    fn prot(self) -> Prot {
        Prot::from_raw((self.0 & (PAGE_SIZE as u64 - 1)) as c_int)
    }
}

impl Mapping {
    /// A mapping of nothing yet, that starts at `iova`, a multiple of the page size.
    ///
    /// # Safety
    ///
    /// Nothing else is mapped in `domains` in the range that will be added to it, as long as it
    /// lives: the caller keeps the ranges of its mappings apart.
    pub unsafe fn new(domains: Arc<Domains>, iova: u64, prot: Prot) -> Self {
        // INVARIANT: Nothing is mapped; nobody else maps there by the contract of this function.
        Self {
            domains,
            frames: Extents::new(),
            place: Place::new(iova, prot),
        }
    }

    /// The first address.
    pub fn iova(&self) -> u64 {
        self.place.iova()
    }

    /// What devices may do.
    pub fn prot(&self) -> Prot {
        self.place.prot()
    }

    /// How much is mapped, in bytes.
    pub fn bytes(&self) -> u64 {
        self.frames.pages() << PAGE_SHIFT
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Takes in `next`, which starts where this one ends, so that both go by one request.
    ///
    /// # Errors
    ///
    /// `next`, if it starts elsewhere, is of another kind or has many runs, or memory is short.
    pub fn join(&mut self, mut next: Self) -> Result<(), Self> {
        let follows = !self.is_empty()
            && self.frames.runs() <= JOINED_TO_RUNS
            && next.frames.runs() <= JOINED_RUNS
            && self.iova().checked_add(self.bytes()) == Some(next.iova())
            && self.prot() == next.prot()
            && Arc::ptr_eq(&self.domains, &next.domains);
        if !follows
            || self
                .frames
                .append(&next.frames, GFP_KERNEL_ACCOUNT)
                .is_err()
        {
            return Err(next);
        }
        // INVARIANT: The range and the pins of `next` are this value's now.
        next.frames = Extents::new();
        Ok(())
    }

    /// Makes `frames` visible behind what is mapped already.
    ///
    /// # Errors
    ///
    /// `EINVAL` for frames that must not be written, but devices could; `ENOMEM`, or what the IOMMU's
    /// driver says. Then the frames have been given back.
    pub fn append(&mut self, frames: Frames) -> Result {
        if self.prot().contains(Access::Write) && !frames.is_write() {
            return Err(EINVAL);
        }
        let (frame, count) = frames.parts();
        let pinned = matches!(frames, Frames::Memory(_));
        let size = count << PAGE_SHIFT;
        let iova = self.iova() + self.bytes();
        for (nth, domain) in self.domains.iter().enumerate() {
            // SAFETY: The pages are pinned by `frames` now and by `self` later; nobody else maps
            // here, by the type invariant.
            let mapped =
                unsafe { domain.map(iova, (frame as u64) << PAGE_SHIFT, size, self.prot()) };
            if let Err((e, gone)) = mapped {
                self.take_back(nth, gone, iova, frames);
                return Err(e);
            }
        }
        if let Err(e) = self.remember(frame as u64, count as u64, pinned) {
            self.take_back(self.domains.iter().count(), true, iova, frames);
            return Err(e);
        }
        if let Frames::Memory(run) = frames {
            // INVARIANT: The pins are now those of `self.frames`.
            run.into_frames();
        }
        Ok(())
    }

    /// Takes frames that were mapped at `iova` out of the first `count` domains, and gives them back if
    /// they are `gone` from the others.
    fn take_back(&self, count: usize, mut gone: bool, iova: u64, frames: Frames) {
        let size = (frames.parts().1 << PAGE_SHIFT) as u64;
        for domain in self.domains.iter().take(count) {
            // SAFETY: Nobody else maps here, by the type invariant.
            gone &= unsafe { domain.unmap(iova, size) };
        }
        match frames {
            // The devices may still see the pages, so these must not be used for anything else.
            Frames::Memory(run) if warn_on!(!gone) => {
                run.into_frames();
            }
            given_back => drop(given_back),
        }
    }

    /// Adds a run to `frames`, all of it or nothing.
    fn remember(&mut self, frame: u64, count: u64, pinned: bool) -> Result {
        // A run of one call to the page tables is far smaller than an extent can be, but for
        // registers, where a page table's entry may map as much as it likes.
        if count <= Extent::MAX_PAGES {
            let extent = Extent::new(frame, count, pinned)?;
            return self.frames.push(extent, GFP_KERNEL_ACCOUNT);
        }
        Err(EINVAL)
    }

    /// Makes this a mapping in `domains`, which are those that it is in and others.
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new), about those others.
    ///
    /// # Errors
    ///
    /// `EINVAL` if one that it is in is missing; `ENOMEM`, or what an IOMMU's driver says. Then it is where
    /// it was.
    pub unsafe fn extend(&mut self, domains: &Arc<Domains>) -> Result {
        if !self.domains.iter().all(|domain| domains.has(domain)) {
            return Err(EINVAL);
        }
        for (nth, domain) in domains.iter().enumerate() {
            if self.domains.has(domain) {
                continue;
            }
            if let Err(e) = self.map_in(domain) {
                for domain in domains.iter().take(nth) {
                    if !self.domains.has(domain) {
                        self.unmap_in(domain, self.bytes());
                    }
                }
                return Err(e);
            }
        }
        // INVARIANT: The range is mapped in all of these, and nobody else maps there by this function's
        // contract.
        self.domains = domains.clone();
        Ok(())
    }

    /// Makes this a mapping in `domains` only, which are some of those that it is in.
    pub fn shrink(&mut self, domains: &Arc<Domains>) {
        if warn_on!(!domains.iter().all(|domain| self.domains.has(domain))) {
            return;
        }
        let old = core::mem::replace(&mut self.domains, domains.clone());
        // INVARIANT: The range is mapped in all of the new domains, and below it goes from the others.
        for domain in old.iter() {
            if !self.domains.has(domain) {
                self.unmap_in(domain, self.bytes());
            }
        }
    }

    /// Maps all frames in one more domain, or none.
    fn map_in(&self, domain: &Domain) -> Result {
        let mut done = 0;
        for extent in self.frames.iter() {
            let size = extent.pages() << PAGE_SHIFT;
            let phys = extent.frame() << PAGE_SHIFT;
            // SAFETY: The pages are pinned by `self`, which either extends to the domain or unmaps them
            // below; nobody else maps here, by the contract of `extend`.
            let mapped =
                unsafe { domain.map(self.iova() + done, phys, size as usize, self.prot()) };
            if let Err((e, _)) = mapped {
                // What does not go with this goes with the domain, whose group is not let in.
                self.unmap_in(domain, done);
                return Err(e);
            }
            done += size;
            cond_resched();
        }
        Ok(())
    }

    /// Unmaps the first `bytes` of the range in one domain. Returns whether no device sees it any more.
    fn unmap_in(&self, domain: &Domain, bytes: u64) -> bool {
        if bytes == 0 {
            return true;
        }
        // SAFETY: Nobody else maps here, by the type invariant.
        let gone = unsafe { domain.unmap(self.iova(), bytes) };
        warn_on!(!gone);
        gone
    }

    /// Unmaps everything and gives the pages back.
    pub fn clear(&mut self) {
        let mut gone = true;
        for domain in self.domains.iter() {
            gone &= self.unmap_in(domain, self.bytes());
        }
        // INVARIANT: Nothing is mapped, and the pins are given back below.
        let frames = core::mem::take(&mut self.frames);
        if !gone {
            // The devices may still see the pages, so these must not be used for anything else.
            return;
        }
        let write = self.prot().contains(Access::Write);
        let pinned = frames.iter().filter(|extent| extent.flag() == PINNED);
        pinned.for_each(|extent| {
            let (mut frame, mut left) = (extent.frame() as usize, extent.pages() as usize);
            while left != 0 {
                let count = left.min(UNPIN_STEP);
                // SAFETY: By the type invariant the run carried the pins of its pages; each page of
                // each run is taken once, here.
                drop(unsafe { PinnedRun::from_frames(frame, count, write) });
                frame += count;
                left -= count;
                cond_resched();
            }
        });
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The most runs of frames that a mapping brings along when it is joined to another one: callers may do so
/// with a lock held.
const JOINED_RUNS: usize = 8;

/// The most runs of a mapping that another one is joined to: their list may have to be copied to grow.
const JOINED_TO_RUNS: usize = 4096;

/// How many pages are unpinned before other tasks may run.
const UNPIN_STEP: usize = (64 << 20) / PAGE_SIZE;
