// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_MAP_DMA`.

use kernel::{
    prelude::*,
    uaccess::UserPtr, //
};

use kernel_ext::{
    bindings::vfio_iommu_type1_dma_map,
    iommu::Prot,
    iova::Range,
    mm::{
        may_warn,
        Charge, //
    },
    task::TaskLabel,
    uapi::Argument, //
};

use crate::{
    container::{
        Container,
        Layout, //
    },
    dirty::bitmap::fits_bitmap,
    error::{
        RequestError,
        RequestResult, //
    },
    request::MapRequest,
    space::{
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
    /// [`MapRequest`], [`map`](Self::map) and [`update_vaddr`](Self::update_vaddr).
    pub(crate) fn ioctl_map(&self, arg: UserPtr) -> Result<isize> {
        let mut user = vfio_iommu_type1_dma_map::blank();
        user.read_in_place(arg)?;
        user.check_argsz(vfio_iommu_type1_dma_map::MIN_SIZE)
            .map_err(|_| RequestError::SHORT_ARGSZ)
            .and_then(|()| MapRequest::new(user.flags, user.vaddr, user.iova, user.size))
            .and_then(|request| match request.prot {
                Some(prot) => self.map(&request, prot),
                None => self.update_vaddr(&request),
            })
            .inspect_err(|e| e.trace(c"map", user.iova, user.size))?;
        Ok(0)
    }

    /// Maps a range of the calling process's memory.
    ///
    /// # Errors
    ///
    /// `EINVAL` if an address or the size is not aligned, if the iova range cannot be used, or if
    /// dirty tracking is enabled and the range is too large for a bitmap; `EEXIST` if it overlaps
    /// a mapping; `ENOSPC` if the container has too many mappings; those of
    /// pinning and of the IOMMU.
    fn map(&self, request: &MapRequest, prot: Prot) -> RequestResult {
        let no_memory = |e| RequestError::new(e, c"out of memory");
        let vaddr = Vaddr::new(request.vaddr as usize);
        let mut is_alone = false;
        loop {
            let memory = Reservation::new(GFP_KERNEL_ACCOUNT).map_err(no_memory)?;
            let check = |layout: &Layout| {
                layout.check_used()?;
                request.check_aligned(layout.page_size())
            };
            let begin = |held: &mut HeldMut<'_, Self>| self.begin_map(held, request.range);
            let new = self.new_dma(request.range, is_alone, prot, vaddr, check, begin)?;
            let Some((mut new, dirty_granule)) = new else {
                // With the whole container locked no other request runs, so the result of the second
                // attempt is final.
                is_alone = true;
                continue;
            };
            if let Some(granule) = dirty_granule {
                // Checked only after the pages are pinned, so that user space sees the errors of
                // pinning first.
                if !fits_bitmap(request.range, granule) {
                    let reason = c"range is too large for a dirty bitmap";
                    return Err(RequestError::new(EINVAL, reason));
                }
                new.reserve_dirty().map_err(no_memory)?;
            }
            if !new.insert(vaddr, memory, self.limit as usize) {
                return Err(self.too_many_mappings());
            }
            return Ok(());
        }
    }

    /// Checks a request to map `range`, in which nothing is mapped. Returns what is charged, and the
    /// number of bytes per bit of the dirty bitmap if dirty tracking is enabled.
    fn begin_map(
        &self,
        held: &mut HeldMut<'_, Self>,
        range: Range,
    ) -> RequestResult<(Charge, Option<u64>)> {
        let layout = held.layout;
        if held.dmas().len() >= self.limit as usize {
            return Err(self.too_many_mappings());
        }
        if let Some(gap) = layout.ranges.gap_in(range) {
            let reason = c"range is outside of the valid iova ranges; see VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE";
            return Err(RequestError::new(EINVAL, reason).at(gap));
        }
        let owner = held.mutex_data.current().map_err(no_owner)?;
        let dirty_granule = layout.dirty_page_tracking.then(|| layout.page_size());
        Ok((Charge::new(owner), dirty_granule))
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
    fn update_vaddr(&self, request: &MapRequest) -> RequestResult {
        let range = request.range;
        let (mut guard, owner) = self.space.lock(range, |held| {
            held.layout.check_used()?;
            request.check_aligned(held.layout.page_size())?;
            let found = held
                .dmas()
                .first_in(range)
                .ok_or(RequestError::new(ENOENT, c"nothing is mapped in the range"))?;
            let owner = held.mutex_data.current().map_err(no_owner)?;
            let mut valid = false;
            held.for_each_from(found.start, |_, dma| {
                valid = dma.vaddr().is_some();
                false
            });
            if valid {
                let reason = c"the vaddr of the mapping is still valid; invalidate it first";
                return Err(RequestError::new(EINVAL, reason).at(found));
            }
            if found != range {
                let reason = c"range is not exactly that of one mapping";
                return Err(RequestError::new(EINVAL, reason).at(found));
            }
            Ok(owner)
        })?;
        guard.try_update(range, |_, _, pages| {
            if pages.charge.owner().is_current() {
                return Ok::<_, RequestError>(());
            }
            let mut charge = Charge::new(owner.clone());
            charge
                .add(pages.charge.pages())
                .map_err(RequestError::charge)?;
            pages.charge = charge;
            Ok(())
        })?;
        guard.finish(|held| held.set_vaddr(range, Some(Vaddr::new(request.vaddr as usize))));
        Ok(())
    }

    /// Returns the error for one mapping too many, and logs how to raise the limit.
    fn too_many_mappings(&self) -> RequestError {
        if may_warn() {
            pr_warn!(
                "{}: dma_entry_limit reached: {} mappings in the container; raise the module parameter dma_entry_limit (applies to new containers)\n",
                TaskLabel::current(),
                self.limit,
            );
        }
        RequestError::new(ENOSPC, c"too many mappings; raise dma_entry_limit")
    }
}

/// Returns the error for a caller without an address space.
fn no_owner(errno: Error) -> RequestError {
    RequestError::new(errno, c"no process to charge for locked memory")
}
