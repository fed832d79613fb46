// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_GET_INFO` and `VFIO_CHECK_EXTENSION`.

use kernel::{
    prelude::*,
    uaccess::UserPtr, //
};

use kernel_ext::{
    bindings::{
        self,
        vfio_iommu_type1_info, //
    },
    uapi::{
        Argument,
        InfoCaps,
        MigrationCap, //
    }, //
};

use crate::{
    container::Container,
    dirty::bitmap::MAX_BYTES, //
};

impl Container {
    /// Handles `VFIO_CHECK_EXTENSION`. `this` is `None` for a container that has no backend yet.
    pub(crate) fn extension(this: Option<&Self>, extension: usize) -> bool {
        let Ok(extension) = u32::try_from(extension) else {
            return false;
        };
        match extension {
            bindings::VFIO_TYPE1_IOMMU
            | bindings::VFIO_TYPE1v2_IOMMU
            | bindings::VFIO_UNMAP_ALL => true,
            bindings::VFIO_UPDATE_VADDR => {
                this.is_some_and(|this| this.space.look().layout().emulated.is_empty())
            }
            bindings::VFIO_DMA_CC_IOMMU => this.is_some_and(Self::enforces_coherency),
            _ => false,
        }
    }

    /// Returns whether all domains enforce cache coherency, so that no device can bypass the
    /// processor caches.
    fn enforces_coherency(&self) -> bool {
        let look = self.space.look();
        let mut domains = look.layout().domains.iter();
        domains.all(|entry| entry.domain.enforces_coherency())
    }

    /// Handles `VFIO_IOMMU_GET_INFO`.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the argument cannot be read or written, `EINVAL` if `argsz` is too small or the
    /// last group is detached, `ENOMEM`.
    pub(crate) fn ioctl_info(&self, arg: UserPtr) -> Result<isize> {
        let mut info = vfio_iommu_type1_info::read(arg)?;
        let room = info.argsz as usize;
        let (page_sizes, caps) = self.describe()?;
        info.flags = bindings::VFIO_IOMMU_INFO_PGSIZES | bindings::VFIO_IOMMU_INFO_CAPS;
        info.iova_pgsizes = page_sizes;
        (info.argsz, info.cap_offset) =
            caps.write_behind::<vfio_iommu_type1_info>(arg, info.argsz)?;
        info.write_prefix(arg, room)?;
        Ok(0)
    }

    /// Returns the supported page sizes and the capability chain.
    fn describe(&self) -> Result<(u64, InfoCaps)> {
        let look = self.space.look();
        let layout = look.layout();
        layout.check_used()?;
        let page_sizes = layout.page_sizes();
        let mut caps = InfoCaps::default();
        caps.push(&MigrationCap::new(layout.page_size(), MAX_BYTES))?;
        caps.push(&bindings::vfio_iommu_type1_info_dma_avail {
            avail: self.limit.saturating_sub(look.dmas().len() as u32),
            ..Default::default()
        })?;
        let ranges = &layout.ranges;
        if !ranges.is_empty() {
            let cap = bindings::vfio_iommu_type1_info_cap_iova_range {
                nr_iovas: ranges.len() as u32,
                ..Default::default()
            };
            let ranges = ranges.iter().map(|range| bindings::vfio_iova_range {
                start: range.start,
                end: range.last,
            });
            caps.push_with(&cap, ranges)?;
        }
        Ok((page_sizes, caps))
    }
}
