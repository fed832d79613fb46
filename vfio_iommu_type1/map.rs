// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_MAP_DMA`.

use kernel::{
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use kernel_ext::{
    bindings::vfio_iommu_type1_dma_map,
    iommu::Prot,
    mm::{
        may_warn,
        Charge, //
    },
    task::TaskLabel, //
};

use crate::{
    abi::{
        new_mapping,
        trace,
        MapDma, //
    },
    container::Container,
    dirty::fits_bitmap,
    maps::{
        Body,
        Map,
        Reservation, //
    },
    populate::populate,
    refusal::{
        because,
        Granted,
        Refusal, //
    },
    request::MapRequest, //
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
    /// mapped there, `ENOSPC` if there are too many maps, and those of [`populate`].
    fn map(&self, request: &MapRequest, prot: Prot) -> Granted {
        let memory = Reservation::new(GFP_KERNEL_ACCOUNT).map_err(because(c"out of memory"))?;
        let range = request.range;
        let mut state = self.lock();
        loop {
            self.wait_idle(&mut state, range);
            request.check_aligned(state.page_size())?;
            if let Some(found) = state.maps.first_in(range) {
                return Err(Refusal::at(found, EEXIST, c"something is mapped there"));
            }
            if state.available != 0 {
                break;
            }
            if state.busy == 0 {
                warn_full(state.limit);
                return Err(Refusal::new(ENOSPC, c"too many mappings"));
            }
            // One of those under way may fail, and leave its place to this one.
            self.wait(&mut state);
        }
        if let Some(gap) = state.ranges.gap_in(range) {
            return Err(Refusal::at(gap, EINVAL, c"reserved, or not translated"));
        }
        let mut charge = Charge::new(
            state
                .current_owner()
                .map_err(because(c"nobody to charge"))?,
        );
        if state.tracks_dirty && !fits_bitmap(range) {
            return Err(Refusal::new(
                EINVAL,
                c"too large for a bitmap of dirty pages",
            ));
        }
        let has_iommu = state.has_iommu();
        let domains = state.set.clone();
        let vaddr = request.vaddr as usize;
        let map = Map::new(range.start, vaddr);
        let claim = self.claim_new(&mut state, range, map, memory);
        drop(state);

        let mut mapping = new_mapping(&claim, domains, prot);
        if has_iommu {
            populate(&mut mapping, &mut charge, vaddr, request.size)?;
        }
        claim.publish(Body::new(mapping, charge));
        Ok(())
    }

    /// Gives a map whose address was withdrawn another one, in the calling process's memory.
    ///
    /// The process is charged from now on, instead of the one that mapped.
    ///
    /// # Errors
    ///
    /// `ENOENT` if nothing is mapped there; `EINVAL` if something isn't aligned, or the range isn't
    /// exactly that of the map, or its address wasn't withdrawn; `ENOMEM` over the limit.
    fn change_vaddr(&self, request: &MapRequest) -> Granted {
        let range = request.range;
        let mut state = self.lock();
        self.wait_idle(&mut state, range);
        request.check_aligned(state.page_size())?;
        const NOTHING: Refusal = Refusal::new(ENOENT, c"nothing is mapped there");
        let found = state.maps.first_in(range).ok_or(NOTHING)?;
        let owner = state
            .current_owner()
            .map_err(because(c"nobody to charge"))?;
        let map = state.maps.get_mut(found.last).ok_or(NOTHING)?;
        if !map.is_withdrawn() {
            return Err(Refusal::at(found, EINVAL, c"has an address"));
        }
        if found != range {
            return Err(Refusal::at(found, EINVAL, c"not exactly one mapping"));
        }
        let (claim, mut body) = self.claim(range, map).ok_or(NOTHING)?;
        state.busy += 1;
        drop(state);

        let mut changed = Ok(());
        if !body.charge.owner().is_current() {
            let mut charge = Charge::new(owner);
            changed = charge.add(body.charge.pages()).map_err(Refusal::charging);
            if changed.is_ok() {
                body.charge = charge;
            }
        }
        if changed.is_ok() {
            let mut state = self.lock();
            state.vaddr_invalid -= 1;
            if let Some(map) = state.maps.get_mut(range.last) {
                map.set_vaddr(request.vaddr as usize);
            }
        }
        claim.publish(body);
        changed
    }
}

/// Tells in the log that a container has as many maps as it may, and what to do.
fn warn_full(limit: u32) {
    if may_warn() {
        pr_warn!(
            "{}: too many mappings: 1 more needed, {} in the container, limit {}; raise the module's parameter dma_entry_limit for containers to come\n",
            TaskLabel::current(),
            limit,
            limit,
        );
    }
}
