// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_MAP_DMA`.

use kernel::{
    prelude::*,
    sync::Arc,
    uaccess::UserPtr, //
};

use iommu_group::ranges::Range;

use kernel_ext::{
    bindings::vfio_iommu_type1_dma_map,
    iommu::{
        Domains,
        Prot, //
    },
    mm::{
        may_warn,
        Charge,
        Owner, //
    },
    task::TaskLabel,
    uapi::Argument, //
};

use crate::{
    abi::{
        new_mapping,
        trace, //
    },
    bitmap::fits_bitmap,
    container::Container,
    pages::DmaPages,
    populate::{
        populate,
        Populated, //
    },
    refusal::{
        because,
        Granted,
        Refusal, //
    },
    request::MapRequest,
    space::{
        Dma,
        HeldMut,
        Reservation,
        Vaddr, //
    }, //
};

impl Container {
    /// Handles the ioctl.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the argument cannot be read, `EINVAL` if `argsz` is too small; those of
    /// [`MapRequest`] and [`map`](Self::map).
    pub(crate) fn ioctl_map(&self, arg: UserPtr) -> Result<isize> {
        let user = vfio_iommu_type1_dma_map::read_unchecked(arg)?;
        self.map_as_asked(&user)
            .inspect_err(|refusal| trace::refused(c"map", user.iova, user.size, refusal))?;
        Ok(0)
    }

    /// Executes the request that the ioctl's argument describes.
    fn map_as_asked(&self, user: &vfio_iommu_type1_dma_map) -> Granted {
        user.check_argsz(vfio_iommu_type1_dma_map::MIN_SIZE)
            .map_err(|_| Refusal::SHORT)?;
        let request = MapRequest::new(user.flags, user.vaddr, user.iova, user.size)?;
        match request.prot {
            Some(prot) => self.map(&request, prot),
            None => self.change_vaddr(&request),
        }
    }

    /// Maps a range of the calling process's memory.
    ///
    /// # Errors
    ///
    /// `EINVAL` if an address or the size is not aligned, if the IOVA range cannot be used, or if
    /// dirty tracking is enabled and the range is too large for a bitmap; `EEXIST` if it overlaps
    /// a mapping; `ENOSPC` if the container has too many mappings; those of [`populate`].
    fn map(&self, request: &MapRequest, prot: Prot) -> Granted {
        if self.map_in(request.range, request, prot)? == Populated::OverLimit {
            // Concurrent requests may have charged pages that they will uncharge again. The second
            // attempt locks the whole container, so no other request runs and its result is final.
            self.map_in(Range::ALL, request, prot)?;
        }
        Ok(())
    }

    /// Maps with `locked` locked. Returns [`Populated::OverLimit`] only if `locked` is not the
    /// whole range.
    fn map_in(&self, locked: Range, request: &MapRequest, prot: Prot) -> Granted<Populated> {
        let memory = Reservation::new(GFP_KERNEL_ACCOUNT).map_err(because(c"out of memory"))?;
        let (guard, plan) = self
            .space
            .lock(locked, |held| self.plan_map(held, request))?;
        let vaddr = Vaddr::new(request.vaddr as usize);
        // Declared before the mapping so that it is dropped after it on failure: pages are charged
        // as long as they are pinned.
        let mut charge = Charge::new(plan.owner);
        let mut mapping = new_mapping(&guard, request.range, plan.domains, prot)
            .map_err(because(c"the addresses are not locked"))?;
        if plan.has_iommu {
            let alone = locked == Range::ALL;
            match populate(&mut mapping, &mut charge, vaddr, request.size, alone)? {
                Populated::All => (),
                Populated::OverLimit => return Ok(Populated::OverLimit),
            }
        }
        let mut pages = DmaPages::new(mapping, charge);
        if let Some(granule) = plan.dirty_granule {
            // Checked only after the pages are pinned, so that user space sees the errors of
            // pinning first.
            if !fits_bitmap(request.range, granule) {
                let why = c"too large for a bitmap of dirty pages";
                return Err(Refusal::new(EINVAL, why));
            }
            pages.reserve_dirty().map_err(because(c"out of memory"))?;
        }
        let dma = Dma::new(vaddr, pages);
        let entered = guard.try_finish(|held| {
            if held.mappings() >= self.limit as usize {
                return Err(dma);
            }
            held.insert(request.range.last, dma, memory);
            Ok(Populated::All)
        });
        entered.map_err(|(guard, dma)| {
            // The range stays locked until the IOMMU has unmapped the pages.
            drop(dma);
            drop(guard);
            self.refuse_full()
        })
    }

    /// Checks a map request. The caller has locked its range.
    fn plan_map(&self, held: &mut HeldMut<'_, Self>, request: &MapRequest) -> Granted<Plan> {
        let layout = held.layout;
        let range = request.range;
        layout.check_used()?;
        request.check_aligned(layout.page_size())?;
        if let Some(found) = held.first_in(range) {
            return Err(Refusal::at(found, EEXIST, c"something is mapped there"));
        }
        if held.mappings() >= self.limit as usize {
            return Err(self.refuse_full());
        }
        if let Some(gap) = layout.ranges.gap_in(range) {
            return Err(Refusal::at(gap, EINVAL, c"reserved, or not translated"));
        }
        let owner = held.state.current().map_err(because(c"nobody to charge"))?;
        Ok(Plan {
            owner,
            domains: layout.set().clone(),
            has_iommu: layout.has_iommu(),
            dirty_granule: layout.tracks_dirty.then(|| layout.page_size()),
        })
    }

    /// Sets a new vaddr, in the calling process's memory, for a mapping whose vaddr was
    /// invalidated.
    ///
    /// The calling process is charged from now on instead of the process that created the mapping.
    ///
    /// # Errors
    ///
    /// `ENOENT` if nothing is mapped there; `EINVAL` if an address or the size is not aligned, or
    /// the range is not exactly that of one mapping, or its vaddr is valid; those of
    /// [`Charge::add`], such as `ENOMEM` over the limit.
    fn change_vaddr(&self, request: &MapRequest) -> Granted {
        let range = request.range;
        let (mut guard, owner) = self.space.lock(range, |held| {
            held.layout.check_used()?;
            request.check_aligned(held.layout.page_size())?;
            let found = held
                .first_in(range)
                .ok_or(Refusal::new(ENOENT, c"nothing is mapped there"))?;
            let owner = held.state.current().map_err(because(c"nobody to charge"))?;
            let mut valid = false;
            held.for_each_from(found.start, |_, dma| {
                valid = dma.vaddr().is_some();
                false
            });
            if valid {
                return Err(Refusal::at(found, EINVAL, c"has an address"));
            }
            if found != range {
                return Err(Refusal::at(found, EINVAL, c"not exactly one mapping"));
            }
            Ok(owner)
        })?;
        guard.try_update(range, |_, _, pages| {
            if pages.charge.owner().is_current() {
                return Ok::<_, Refusal>(());
            }
            let mut charge = Charge::new(owner.clone());
            charge
                .add(pages.charge.pages())
                .map_err(Refusal::charging)?;
            pages.charge = charge;
            Ok(())
        })?;
        guard.finish(|held| held.set_vaddr(range, Some(Vaddr::new(request.vaddr as usize))));
        Ok(())
    }

    /// Returns the error for one mapping too many, and logs how to raise the limit.
    fn refuse_full(&self) -> Refusal {
        if may_warn() {
            pr_warn!(
                "{}: too many mappings: 1 more needed, {} in the container, limit {}; raise the module parameter dma_entry_limit (applies to new containers)\n",
                TaskLabel::current(),
                self.limit,
                self.limit,
            );
        }
        Refusal::new(ENOSPC, c"too many mappings")
    }
}

/// The data that a map request works with while its range is locked.
struct Plan {
    owner: Arc<Owner>,
    domains: Arc<Domains>,
    has_iommu: bool,
    /// The number of bytes per bit of the dirty bitmap, if dirty tracking is enabled.
    dirty_granule: Option<u64>,
}
