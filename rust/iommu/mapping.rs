// SPDX-License-Identifier: GPL-2.0

//! Memory that is mapped for devices.

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

/// Frames that can be mapped for devices.
pub enum Frames {
    /// Pages of memory. The mapping owns their pins.
    Memory(PinnedRun),
    /// MMIO of a device. No reference to it is held.
    Mmio(FrameRun),
}

impl Frames {
    /// Returns whether devices may also write to the frames.
    fn is_write(&self) -> bool {
        match self {
            Self::Memory(run) => run.is_write(),
            Self::Mmio(run) => run.is_write(),
        }
    }

    /// Returns the number of the first frame, and the number of frames.
    fn parts(&self) -> (usize, usize) {
        match self {
            Self::Memory(run) => (run.frame(), run.count()),
            Self::Mmio(run) => (run.frame(), run.count()),
        }
    }
}

/// A range of iovas to which frames are appended. They stay mapped, and their pages pinned, until
/// the value is dropped or cleared.
///
/// # Invariants
///
/// - Each of `domains` maps the range, starting at its first byte, to `frames`, in order, and no
///   other code maps or unmaps there. The page tables of a retired domain are exempt.
/// - A run of `frames` whose flag is set is memory, and owns the pins of its pages.
/// - `place` is marked as reachable if another domain may still map pages of `frames`.
pub struct Mapping {
    domains: Arc<Domains>,
    frames: Extents,
    place: Place,
}

const _: () = assert!(size_of::<Mapping>() == 32);

/// The first iova of a mapping. The low bits hold its `prot`, and whether an earlier unmap from a
/// domain has failed.
#[derive(Clone, Copy)]
struct Place(u64);

impl Place {
    /// Set if an unmap has failed, so that devices may still access the pages.
    const REACHABLE: u64 = PAGE_SIZE as u64 / 2;

    fn new(iova: u64, prot: Prot) -> Self {
        Self(iova & !(PAGE_SIZE as u64 - 1) | u64::from(u32::from(prot)))
    }

    fn iova(self) -> u64 {
        self.0 & !(PAGE_SIZE as u64 - 1)
    }

    fn prot(self) -> Prot {
        Prot::from_raw((self.0 & (PAGE_SIZE as u64 - 1)) as c_int)
    }

    fn is_reachable(self) -> bool {
        self.0 & Self::REACHABLE != 0
    }

    fn set_reachable(&mut self, reachable: bool) {
        self.0 = self.0 & !Self::REACHABLE | u64::from(reachable) * Self::REACHABLE;
    }
}

impl Mapping {
    /// Creates an empty mapping that starts at `iova`, a multiple of the page size.
    ///
    /// # Safety
    ///
    /// As long as the mapping exists, nothing else is mapped in `domains` in the range that is
    /// added to it: the caller keeps the ranges of its mappings disjoint.
    pub unsafe fn new(domains: Arc<Domains>, iova: u64, prot: Prot) -> Self {
        // INVARIANT: Nothing is mapped, and by the contract of this function no other code maps
        // there.
        Self {
            domains,
            frames: Extents::new(),
            place: Place::new(iova, prot),
        }
    }

    /// Returns the first iova.
    #[inline]
    pub fn iova(&self) -> u64 {
        self.place.iova()
    }

    /// Returns the access permissions of devices.
    #[inline]
    pub fn prot(&self) -> Prot {
        self.place.prot()
    }

    /// Returns the number of mapped bytes.
    pub fn bytes(&self) -> u64 {
        self.frames.pages() << PAGE_SHIFT
    }

    /// Returns whether nothing is mapped.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Appends the mapping `next`, which starts where this one ends, so that one request unmaps
    /// both.
    ///
    /// # Errors
    ///
    /// Returns `next` if it starts elsewhere, if its permissions or domains differ, if this mapping
    /// is empty, if one of the two has too many runs, if unmapping one of them has failed, or if
    /// memory is short.
    pub fn join(&mut self, mut next: Self) -> Result<(), Self> {
        let follows = !self.is_empty()
            && !self.place.is_reachable()
            && !next.place.is_reachable()
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
        // INVARIANT: This value owns the range and the pins of `next` now.
        next.frames = Extents::new();
        Ok(())
    }

    /// Maps `frames` at the end of this mapping.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the mapping permits writes but the frames must not be written, or if there are
    /// too many frames for one run; `ENOMEM`; or an error of the IOMMU driver. After an error the
    /// frames have been released.
    pub fn append(&mut self, frames: Frames) -> Result {
        if self.prot().contains(Access::Write) && !frames.is_write() {
            return Err(EINVAL);
        }
        let (frame, count) = frames.parts();
        let is_memory = matches!(frames, Frames::Memory(_));
        let extent = Extent::new(frame as u64, count as u64, is_memory)?;
        let (iova, phys) = (self.iova() + self.bytes(), (frame as u64) << PAGE_SHIFT);
        for (nth, domain) in self.domains.iter().enumerate() {
            // SAFETY: The pages are pinned by `frames` now and by `self` later; by the type
            // invariant no other code maps here.
            let mapped = unsafe { domain.map(iova, phys, count << PAGE_SHIFT, self.prot()) };
            if let Err((e, gone)) = mapped {
                self.take_back(nth, gone, iova, frames);
                return Err(e);
            }
        }
        if let Err(e) = self.frames.push(extent, GFP_KERNEL_ACCOUNT) {
            self.take_back(usize::MAX, true, iova, frames);
            return Err(e);
        }
        if let Frames::Memory(run) = frames {
            // INVARIANT: `self.frames` owns the pins now.
            run.into_frames();
        }
        Ok(())
    }

    /// Unmaps `frames`, which were mapped at `iova`, from the first `count` domains. Releases them
    /// if this succeeds and `gone` says that they aren't mapped in the other domains. Otherwise
    /// keeps the pages pinned for ever.
    fn take_back(&self, count: usize, mut gone: bool, iova: u64, frames: Frames) {
        let size = (frames.parts().1 << PAGE_SHIFT) as u64;
        for domain in self.domains.iter().take(count) {
            // SAFETY: By the type invariant no other code maps here.
            gone &= unsafe { domain.unmap(iova, size) };
        }
        match frames {
            // Devices may still access the pages, so the pages must not be reused.
            Frames::Memory(run) if !gone => {
                run.into_frames();
            }
            given_back => drop(given_back),
        }
    }

    /// Maps the range in more domains. `domains` contains the current domains and the new ones.
    ///
    /// # Safety
    ///
    /// The same as for [`new`](Self::new), for the new domains.
    ///
    /// # Errors
    ///
    /// `EINVAL` if one of the current domains is missing; `ENOMEM`; or an error of an IOMMU driver.
    /// After an error the domains of the mapping are unchanged. If unmapping from the new domains
    /// fails, too, the pages stay pinned for ever.
    pub unsafe fn extend(&mut self, domains: &Arc<Domains>) -> Result {
        if !self.domains.iter().all(|domain| domains.has(domain)) {
            return Err(EINVAL);
        }
        for (nth, domain) in domains.iter().enumerate() {
            if self.domains.has(domain) {
                continue;
            }
            if let Err((e, mut gone)) = self.map_in(domain) {
                for domain in domains.iter().take(nth) {
                    if !self.domains.has(domain) {
                        gone &= self.unmap_in(domain, self.bytes());
                    }
                }
                self.place.set_reachable(self.place.is_reachable() || !gone);
                return Err(e);
            }
        }
        // INVARIANT: The range is mapped in all of these domains, and by the contract of this
        // function no other code maps there.
        self.domains = domains.clone();
        Ok(())
    }

    /// Unmaps the range from all domains except `domains`, which are some of the current ones. If
    /// this fails, the pages stay pinned for ever.
    pub fn shrink(&mut self, domains: &Arc<Domains>) {
        if warn_on!(!domains.iter().all(|domain| self.domains.has(domain))) {
            return;
        }
        let old = core::mem::replace(&mut self.domains, domains.clone());
        // INVARIANT: The range is mapped in all of the new domains. It is unmapped from the others
        // below, or the mapping is marked.
        let mut gone = !self.place.is_reachable();
        for domain in old.iter() {
            if !self.domains.has(domain) {
                gone &= self.unmap_in(domain, self.bytes());
            }
        }
        self.place.set_reachable(!gone);
    }

    /// Maps all frames in another domain, or none of them. The flag next to the error is true if
    /// everything that this call mapped has been unmapped again.
    fn map_in(&self, domain: &Domain) -> Result<(), (Error, bool)> {
        let mut done = 0;
        for extent in self.frames.iter() {
            let size = extent.pages() << PAGE_SHIFT;
            let phys = extent.frame() << PAGE_SHIFT;
            // SAFETY: The pages are pinned by `self`, which either extends to the domain, or unmaps
            // them below, or keeps them pinned; by the contract of `extend` no other code maps
            // here.
            let mapped =
                unsafe { domain.map(self.iova() + done, phys, size as usize, self.prot()) };
            if let Err((e, gone)) = mapped {
                return Err((e, self.unmap_in(domain, done) && gone));
            }
            done += size;
            cond_resched();
        }
        Ok(())
    }

    /// Unmaps the first `bytes` bytes of the range from one domain. Returns whether this succeeded,
    /// so that no device can access them through the domain.
    fn unmap_in(&self, domain: &Domain, bytes: u64) -> bool {
        if bytes == 0 {
            return true;
        }
        // SAFETY: By the type invariant no other code maps here.
        unsafe { domain.unmap(self.iova(), bytes) }
    }

    /// Unmaps everything and unpins the pages. If unmapping fails or failed before, the pages stay
    /// pinned for ever.
    pub fn clear(&mut self) {
        let mut gone = !self.place.is_reachable();
        for domain in self.domains.iter() {
            gone &= self.unmap_in(domain, self.bytes());
        }
        // INVARIANT: Nothing is mapped, and the pins are released below.
        let frames = core::mem::take(&mut self.frames);
        self.place.set_reachable(false);
        if !gone {
            // Devices may still access the pages, so the pages must not be reused.
            return;
        }
        let write = self.prot().contains(Access::Write);
        let pinned = frames.iter().filter(|extent| extent.flag());
        pinned.for_each(|extent| {
            let (mut frame, mut left) = (extent.frame() as usize, extent.pages() as usize);
            while left != 0 {
                let count = left.min(UNPIN_STEP);
                // SAFETY: By the type invariant the run owned the pins of its pages; each page of
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
    #[inline]
    fn drop(&mut self) {
        self.clear();
    }
}

/// Maximum number of runs of a mapping that can be appended to another one. There is a limit
/// because callers may hold a lock.
const JOINED_RUNS: usize = 8;

/// Maximum number of runs of a mapping to which another one can be appended. There is a limit
/// because the list of runs may have to be copied to grow.
const JOINED_TO_RUNS: usize = 4096;

/// Number of pages that are unpinned before other tasks may run.
const UNPIN_STEP: usize = (64 << 20) / PAGE_SIZE;

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(kernel_ext_mapping)]
mod tests {
    use kernel::{
        page::Page,
        sync::atomic::{
            Atomic,
            Relaxed, //
        }, //
    };

    use super::*;
    use crate::bindings;

    /// Bytes of the page of a [`Pinned`].
    const SIZE: usize = PAGE_SIZE;

    /// A page that can be pinned once.
    struct Pinned(Page);

    impl Pinned {
        fn new() -> Result<Self> {
            Ok(Self(Page::alloc_page(GFP_KERNEL)?))
        }

        /// Returns the reference count of the page, of which a pin is 1024.
        fn count(&self) -> &Atomic<i32> {
            // SAFETY: The page is valid, and its reference count is atomic.
            unsafe { Atomic::from_ptr(&raw mut (*self.0.as_ptr())._refcount.counter) }
        }

        /// Pins the page.
        fn pin(&self) -> Result<Frames> {
            self.count()
                .fetch_add(bindings::GUP_PIN_COUNTING_BIAS as i32, Relaxed);
            // SAFETY: The page is valid.
            unsafe {
                bindings::inc_node_page_state(
                    self.0.as_ptr(),
                    bindings::node_stat_item_NR_FOLL_PIN_ACQUIRED,
                )
            };
            Ok(Frames::Memory(self.run()?))
        }

        fn is_pinned(&self) -> bool {
            self.count().load(Relaxed) >= bindings::GUP_PIN_COUNTING_BIAS as i32
        }

        fn run(&self) -> Result<PinnedRun> {
            // SAFETY: The page is valid.
            let frame = unsafe { bindings::kernel_ext_page_to_pfn(self.0.as_ptr()) };
            // SAFETY: The page was pinned once, and the tests take the pin once.
            unsafe { PinnedRun::from_frames(frame, 1, false) }.ok_or(EINVAL)
        }

        /// Releases a pin that a mapping has kept for ever.
        fn unpin(&self) -> Result {
            assert!(self.is_pinned());
            drop(self.run()?);
            assert!(!self.is_pinned());
            Ok(())
        }
    }

    /// Returns two fake domains: a set of the first one, and a set of both.
    fn sets() -> Result<[(Arc<Domain>, Arc<Domains>); 2]> {
        let first = Arc::new(Domain::fake()?, GFP_KERNEL)?;
        let second = Arc::new(Domain::fake()?, GFP_KERNEL)?;
        let one = Domains::default().with(&first)?;
        let both = one.with(&second)?;
        Ok([(first, one), (second, both)])
    }

    /// Returns an empty mapping for reading.
    fn mapping(domains: &Arc<Domains>) -> Mapping {
        // SAFETY: The test makes only one mapping in these domains.
        unsafe { Mapping::new(domains.clone(), 0x10000, Access::Read.into()) }
    }

    /// Returns a mapping of `page` in the first domain.
    fn mapped(domains: &Arc<Domains>, page: &Pinned) -> Result<Mapping> {
        let mut mapping = mapping(domains);
        mapping.append(page.pin()?)?;
        Ok(mapping)
    }

    #[test]
    fn pages_are_unpinned_when_they_are_unmapped() -> Result {
        let [(first, _), (second, both)] = sets()?;
        let page = Pinned::new()?;
        let mut mapping = mapped(&both, &page)?;
        assert_eq!((first.fake_bytes(), second.fake_bytes()), (SIZE, SIZE));
        mapping.clear();
        assert_eq!((first.fake_bytes(), second.fake_bytes()), (0, 0));
        assert!(mapping.is_empty() && !page.is_pinned());
        Ok(())
    }

    /// On a 32-bit machine this is the last page that there is.
    #[test]
    fn page_below_4_gib_is_mapped() -> Result {
        let [(first, one), _] = sets()?;
        let page = Pinned::new()?;
        // SAFETY: The test makes only one mapping in this domain.
        let mut mapping =
            unsafe { Mapping::new(one, (1 << 32) - SIZE as u64, Access::Read.into()) };
        mapping.append(page.pin()?)?;
        assert_eq!(first.fake_bytes(), SIZE);
        mapping.clear();
        assert_eq!(first.fake_bytes(), 0);
        assert!(!page.is_pinned());
        Ok(())
    }

    #[test]
    fn append_that_fails_changes_nothing() -> Result {
        let [(first, _), (second, both)] = sets()?;
        let page = Pinned::new()?;
        let mut mapping = mapping(&both);
        second.let_fake(false, true);
        assert_eq!(mapping.append(page.pin()?), Err(ENOMEM));
        assert!(mapping.is_empty() && !page.is_pinned());
        assert_eq!(first.fake_bytes(), 0);
        // The page can't be taken back from the first domain.
        first.let_fake(true, false);
        assert_eq!(mapping.append(page.pin()?), Err(ENOMEM));
        assert!(mapping.is_empty());
        page.unpin()
    }

    #[test]
    fn pages_that_stay_mapped_stay_pinned() -> Result {
        let [(first, one), _] = sets()?;
        let page = Pinned::new()?;
        first.let_fake(true, false);
        drop(mapped(&one, &page)?);
        page.unpin()
    }

    #[test]
    fn pages_that_stay_mapped_in_a_former_domain_stay_pinned() -> Result {
        let [(first, one), (second, both)] = sets()?;
        let page = Pinned::new()?;
        let mut mapping = mapped(&both, &page)?;
        second.let_fake(true, false);
        mapping.shrink(&one);
        // The mapping remembers it.
        second.let_fake(true, true);
        mapping.shrink(&one);
        mapping.clear();
        assert_eq!((first.fake_bytes(), second.fake_bytes()), (0, SIZE));
        page.unpin()?;
        // A page that is mapped later is in no other domain.
        mapping.append(page.pin()?)?;
        drop(mapping);
        assert!(!page.is_pinned());
        Ok(())
    }

    #[test]
    fn extend_that_fails_unmaps_or_keeps_the_pages() -> Result {
        let [(_, one), (second, both)] = sets()?;
        let third = Arc::new(Domain::fake()?, GFP_KERNEL)?;
        let all = both.with(&third)?;
        let page = Pinned::new()?;
        third.let_fake(false, true);
        for unmaps in [true, false] {
            second.let_fake(true, unmaps);
            let mut mapping = mapped(&one, &page)?;
            // SAFETY: The test makes only one mapping in these domains at a time.
            assert_eq!(unsafe { mapping.extend(&all) }, Err(ENOMEM));
            drop(mapping);
            assert_eq!(page.is_pinned(), !unmaps);
        }
        page.unpin()
    }
}
