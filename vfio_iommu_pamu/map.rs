// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_MAP_DMA` and `VFIO_IOMMU_UNMAP_DMA`.

use core::ops::RangeInclusive;

use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    uaccess::UserPtr, //
};

use kernel_ext::{
    mm::mapped_page,
    uapi, //
};

use crate::{
    container::{
        Container,
        ContainerState, //
    },
    memory::pin,
    msi,
    paace::MIN_ORDER,
    request::{
        MapRequest,
        UnmapRequest, //
    },
    windows::geometry::Span, //
};

const _: () = assert!(MIN_ORDER as usize == PAGE_SHIFT);

impl Container {
    /// Handles `VFIO_IOMMU_MAP_DMA`.
    ///
    /// # Errors
    ///
    /// Those of [`MapRequest::read`], and of mapping memory or banks.
    pub(crate) fn ioctl_map(&self, arg: UserPtr) -> Result<isize> {
        let request = MapRequest::read(arg)?;
        match request.vaddr {
            None => self.map_chosen_banks(&request)?,
            Some(vaddr) => match mapped_page(&msi::file::FILES, vaddr, PAGE_SIZE) {
                Some(_) => self.map_file_banks(&request, vaddr)?,
                None => self.map_memory(&request, vaddr)?,
            },
        }
        Ok(0)
    }

    /// Maps memory of the calling process. The memory is pinned without holding the lock.
    ///
    /// # Errors
    ///
    /// Those of [`check_memory`](crate::windows::AddressSpace::check_memory) and [`pin`]; `EBUSY`
    /// if the windows were changed in the meantime.
    fn map_memory(&self, request: &MapRequest, vaddr: usize) -> Result {
        let span = self.lock().space.check_memory(request.iova, request.size)?;
        let memory = pin(span, vaddr, request.prot)?;
        let mut state = self.lock();
        let ContainerState { space, devices, .. } = &mut *state;
        let free = space.free_windows(request.iova, request.size)?;
        let mapped = free.map(memory, devices);
        drop(state);
        mapped.map_err(|_not_mapped| EBUSY)
    }

    /// Maps banks that the kernel selects.
    ///
    /// # Errors
    ///
    /// Those of [`check_doorbells`](crate::windows::AddressSpace::check_doorbells); `EINVAL` if a
    /// window is used in part; `ENOSPC` if there are too few banks.
    fn map_chosen_banks(&self, request: &MapRequest) -> Result {
        let mut state = self.lock();
        let ContainerState { space, devices, .. } = &mut *state;
        let free = space.free_doorbells(request.iova, request.size)?;
        if free.span().last_order != free.span().order {
            return Err(EINVAL);
        }
        let banks = free.choose_banks()?;
        free.map(&banks, request.prot, devices)
    }

    /// Maps the banks that the file of `VFIO_GROUP_GET_MSI_FD` mapped at `vaddr` stands for.
    ///
    /// # Errors
    ///
    /// Those of [`free_doorbell`](crate::windows::AddressSpace::free_doorbell); `EINVAL` for more than 4
    /// KiB a window; `EFAULT` if the file's mapping is too short; `ENODEV` for a page after the
    /// last bank.
    fn map_file_banks(&self, request: &MapRequest, vaddr: usize) -> Result {
        let size = usize::try_from(request.size).map_err(|_| EINVAL)?;
        let span = self
            .lock()
            .space
            .check_doorbells(request.iova, request.size)?;
        check_one_page_each(span)?;
        let first = mapped_page(&msi::file::FILES, vaddr, size).ok_or(EFAULT)?;
        let mut banks = KVec::with_capacity(span.count as usize, GFP_KERNEL)?;
        for nth in 0..span.count as usize {
            let bank = u32::try_from(first + nth).map_err(|_| ENODEV)?;
            banks.push(bank, GFP_KERNEL)?;
        }
        let mut state = self.lock();
        let ContainerState { space, devices, .. } = &mut *state;
        let free = space.free_doorbells(request.iova, request.size)?;
        if free.span() != span {
            return Err(EBUSY);
        }
        free.map(&banks, request.prot, devices)
    }

    /// Handles `VFIO_IOMMU_UNMAP_DMA`.
    ///
    /// # Errors
    ///
    /// Those of [`UnmapRequest::read`] and
    /// [`check_unmap`](crate::windows::AddressSpace::check_unmap).
    pub(crate) fn ioctl_unmap(&self, arg: UserPtr) -> Result<isize> {
        let request = UnmapRequest::read(arg)?;
        let bytes = self.unmap(&request)?;
        let answer = arg.wrapping_byte_add(UnmapRequest::SIZE_OFFSET);
        uapi::write(answer, &bytes)?;
        Ok(0)
    }

    /// Unmaps windows, and returns the number of bytes unmapped.
    fn unmap(&self, request: &UnmapRequest) -> Result<u64> {
        let mut state = self.lock();
        let ContainerState { space, devices, .. } = &mut *state;
        let Some(unmapped) = space.check_unmap(request.iova, request.size)? else {
            return Ok(0);
        };
        space.unmap(unmapped.first, unmapped.last, devices);
        drop(state);
        self.free_unmapped(unmapped.first..=unmapped.last);
        Ok(unmapped.bytes)
    }

    /// Frees the memory of windows that were unmapped, without holding the lock.
    pub(crate) fn free_unmapped(&self, windows: RangeInclusive<u32>) {
        for window in windows {
            let memory = self.lock().space.take_unmapped(window);
            drop(memory);
        }
    }
}

/// Checks that each window of `span` maps one page.
fn check_one_page_each(span: Span) -> Result {
    if span.windows().any(|(_, order)| order != MIN_ORDER) {
        return Err(EINVAL);
    }
    Ok(())
}
