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
    iommu::Prot,
    mm::{
        may_warn,
        Charge, //
    }, //
};

use crate::{
    abi::{
        new_mapping,
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
        if (user.argsz as usize) < size {
            return Err(EINVAL);
        }
        let request = MapRequest::new(user.flags, user.vaddr, user.iova, user.size)?;
        match request.prot {
            Some(prot) => self.map(&request, prot)?,
            None => self.change_vaddr(&request)?,
        }
        Ok(0)
    }

    /// Maps a range of the calling process's memory.
    ///
    /// # Errors
    ///
    /// `EINVAL` if something isn't aligned or the addresses can't be used, `EEXIST` if something is
    /// mapped there, `ENOSPC` if there are too many maps, and those of [`populate`].
    fn map(&self, request: &MapRequest, prot: Prot) -> Result {
        let memory = Reservation::new(GFP_KERNEL_ACCOUNT)?;
        let range = request.range;
        let mut state = self.lock();
        loop {
            self.wait_idle(&mut state, range);
            request.check_aligned(state.page_size())?;
            if state.maps.first_in(range).is_some() {
                return Err(EEXIST);
            }
            if state.available != 0 {
                break;
            }
            if state.busy == 0 {
                if may_warn() {
                    pr_warn!("too many mappings in one container: raise the module's parameter dma_entry_limit\n");
                }
                return Err(ENOSPC);
            }
            // One of those under way may fail, and leave its place to this one.
            self.wait(&mut state);
        }
        if !state.ranges.allows(range) {
            return Err(EINVAL);
        }
        let mut charge = Charge::new(state.current_owner()?);
        if state.tracks_dirty && !fits_bitmap(range) {
            return Err(EINVAL);
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
    fn change_vaddr(&self, request: &MapRequest) -> Result {
        let range = request.range;
        let mut state = self.lock();
        self.wait_idle(&mut state, range);
        request.check_aligned(state.page_size())?;
        let found = state.maps.first_in(range).ok_or(ENOENT)?;
        let owner = state.current_owner()?;
        let map = state.maps.get_mut(found.last).ok_or(ENOENT)?;
        if !map.is_withdrawn() || found != range {
            return Err(EINVAL);
        }
        let (claim, mut body) = self.claim(range, map).ok_or(ENOENT)?;
        state.busy += 1;
        drop(state);

        let mut changed = Ok(());
        if !body.charge.owner().is_current() {
            let mut charge = Charge::new(owner);
            changed = charge.add(body.charge.pages());
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
