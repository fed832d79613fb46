// SPDX-License-Identifier: GPL-2.0

//! Memory that devices see.

use kernel::{
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
/// - Each of `domains` maps the `bytes` bytes from `iova` on to `frames`, in order, and nobody else
///   maps or unmaps there.
/// - A run of `frames` whose flag is set carries the pins of its pages.
pub struct Mapping {
    domains: Arc<Domains>,
    frames: Extents,
    iova: u64,
    bytes: u64,
    prot: Prot,
}

/// The flag of a run whose pages are pinned.
const PINNED: bool = true;

impl Mapping {
    /// A mapping of nothing yet, that starts at `iova`.
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
            iova,
            bytes: 0,
            prot,
        }
    }

    /// How much is mapped.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes `frames` visible behind what is mapped already.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or what the IOMMU's driver says; then the frames have been given back.
    pub fn append(&mut self, frames: Frames) -> Result {
        let (frame, count) = frames.parts();
        let pinned = matches!(frames, Frames::Memory(_));
        let size = count << PAGE_SHIFT;
        let iova = self.iova + self.bytes;
        for (nth, domain) in self.domains.iter().enumerate() {
            // SAFETY: The pages are pinned by `frames` now and by `self` later; nobody else maps
            // here, by the type invariant.
            let mapped = unsafe { domain.map(iova, (frame as u64) << PAGE_SHIFT, size, self.prot) };
            if let Err(e) = mapped {
                self.unmap_first(nth, iova, size as u64);
                return Err(e);
            }
        }
        if let Err(e) = self.remember(frame as u64, count as u64, pinned) {
            self.unmap_first(self.domains.len(), iova, size as u64);
            return Err(e);
        }
        if let Frames::Memory(run) = frames {
            // INVARIANT: The pins are now those of `self.frames`.
            run.into_frames();
        }
        self.bytes += size as u64;
        Ok(())
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

    /// Takes a range out of the first `count` domains.
    fn unmap_first(&self, count: usize, iova: u64, size: u64) {
        for domain in self.domains.iter().take(count) {
            // SAFETY: Nobody else maps here, by the type invariant.
            let gone = unsafe { domain.unmap(iova, size) };
            warn_on!(!gone);
        }
    }

    /// Makes this a mapping in `domains` instead of those that it is in.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or what an IOMMU's driver says; then it is where it was.
    pub fn move_to(&mut self, domains: &Arc<Domains>) -> Result {
        for (nth, domain) in domains.iter().enumerate() {
            if self.domains.has(domain) {
                continue;
            }
            if let Err(e) = self.map_in(domain) {
                for domain in domains.iter().take(nth) {
                    if !self.domains.has(domain) {
                        self.unmap_in(domain, self.bytes);
                    }
                }
                return Err(e);
            }
        }
        let old = core::mem::replace(&mut self.domains, domains.clone());
        // INVARIANT: The range is now mapped in all of the new domains, and below it goes from those
        // of the old ones which are not among them.
        for domain in old.iter() {
            if !self.domains.has(domain) {
                self.unmap_in(domain, self.bytes);
            }
        }
        Ok(())
    }

    /// Maps all frames in one more domain, or none.
    fn map_in(&self, domain: &Domain) -> Result {
        let mut done = 0;
        for extent in self.frames.iter() {
            let size = extent.pages() << PAGE_SHIFT;
            let phys = extent.frame() << PAGE_SHIFT;
            // SAFETY: The pages are pinned by `self`, which either moves to the domain or unmaps them
            // below; nobody else maps here, by the type invariant.
            let mapped = unsafe { domain.map(self.iova + done, phys, size as usize, self.prot) };
            if let Err(e) = mapped {
                self.unmap_in(domain, done);
                return Err(e);
            }
            done += size;
            cond_resched();
        }
        Ok(())
    }

    /// Unmaps the first `bytes` of the range in one domain. Returns whether all of it is gone.
    fn unmap_in(&self, domain: &Domain, bytes: u64) -> bool {
        if bytes == 0 {
            return true;
        }
        // SAFETY: Nobody else maps here, by the type invariant.
        let gone = unsafe { domain.unmap(self.iova, bytes) };
        warn_on!(!gone);
        gone
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mut gone = true;
        for domain in self.domains.iter() {
            gone &= self.unmap_in(domain, self.bytes);
        }
        if !gone {
            // The devices may still see the pages, so these must not be used for anything else.
            return;
        }
        let write = self.prot.contains(Access::Write);
        for extent in self.frames.iter().filter(|extent| extent.flag() == PINNED) {
            let (mut frame, mut left) = (extent.frame() as usize, extent.pages() as usize);
            while left != 0 {
                let count = left.min(UNPIN_STEP);
                // SAFETY: By the type invariant the run carries the pins of its pages; each page of
                // each run is taken once, here.
                drop(unsafe { PinnedRun::from_frames(frame, count, write) });
                frame += count;
                left -= count;
                cond_resched();
            }
        }
    }
}

/// How many pages are unpinned before other tasks may run.
const UNPIN_STEP: usize = (64 << 20) / PAGE_SIZE;
