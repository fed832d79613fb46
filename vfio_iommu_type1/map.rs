// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_MAP_DMA`.

use kernel::{
    prelude::*,
    sync::Arc,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
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
    task::TaskLabel, //
};

use crate::{
    abi::{
        new_mapping,
        trace,
        MapDma, //
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
        Alone,
        Dma,
        Reservation,
        Vaddr, //
    }, //
};

impl Container {
    /// Handles the ioctl.
    ///
    /// # Errors
    ///
    /// `EFAULT` for a bad argument, `EINVAL` for a short one; else those of [`MapRequest`] and
    /// [`map`](Self::map).
    pub(crate) fn ioctl_map(&self, arg: UserPtr) -> Result<isize> {
        let size = core::mem::size_of::<MapDma>();
        let MapDma(user) = UserSlice::new(arg, size).reader().read()?;
        self.map_as_asked(&user)
            .inspect_err(|refusal| trace::refused(c"map", user.iova, user.size, refusal))?;
        Ok(0)
    }

    /// Does what the ioctl's argument asks for.
    fn map_as_asked(&self, user: &vfio_iommu_type1_dma_map) -> Granted {
        if (user.argsz as usize) < core::mem::size_of::<MapDma>() {
            return Err(Refusal::SHORT);
        }
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
    /// `EINVAL` if something isn't aligned or the addresses can't be used, `EEXIST` if something is
    /// mapped there, `ENOSPC` if there are too many mappings, and those of [`populate`].
    fn map(&self, request: &MapRequest, prot: Prot) -> Granted {
        if self.map_in(request.range, request, prot)? == Populated::OverLimit {
            // What others charge at the same time may be charged in vain. None are at work beside this
            // one, so this answer is final.
            self.map_in(Range::ALL, request, prot)?;
        }
        Ok(())
    }

    /// Maps with `locked` locked. Says that the memory is over the limit only if that isn't everything.
    fn map_in(&self, locked: Range, request: &MapRequest, prot: Prot) -> Granted<Populated> {
        let memory = Reservation::new(GFP_KERNEL_ACCOUNT).map_err(because(c"out of memory"))?;
        let (guard, plan) = self
            .space
            .lock(locked, |held| self.plan_map(held, request))?;
        let vaddr = Vaddr::new(request.vaddr as usize);
        // Goes after the mapping, if that fails: pages are charged as long as they are pinned.
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
            // After the pages were pinned: what fails there is what a program is told first.
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
            // Nobody may map there until the IOMMU has forgotten the pages.
            drop(dma);
            drop(guard);
            self.refuse_full()
        })
    }

    /// Checks a request to map, whose addresses are locked.
    fn plan_map(&self, held: &mut Alone<'_, Self>, request: &MapRequest) -> Granted<Plan> {
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

    /// Gives a mapping whose address was invalidated another one, in the calling process's memory.
    ///
    /// The process is charged from now on, instead of the one that mapped.
    ///
    /// # Errors
    ///
    /// `ENOENT` if nothing is mapped there; `EINVAL` if something isn't aligned, or the range isn't
    /// exactly that of the mapping, or its address is valid; `ENOMEM` over the limit.
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
                return Ok(());
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

    /// Refuses one more mapping, and tells in the log what to do.
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

/// What a request to map works with, as long as its addresses are locked.
struct Plan {
    owner: Arc<Owner>,
    domains: Arc<Domains>,
    has_iommu: bool,
    /// What a bit of its bitmap stands for, if dirty pages are tracked.
    dirty_granule: Option<u64>,
}
