// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_GET_INFO` and `VFIO_CHECK_EXTENSION`.

use kernel::{
    prelude::*,
    uaccess::UserPtr, //
};

use kernel_ext::{
    bindings::{
        self,
        vfio_iommu_type1_info,
        vfio_iommu_type1_info_cap_iova_range,
        vfio_iommu_type1_info_dma_avail,
        vfio_iova_range, //
    },
    uapi::{
        Argument,
        InfoCaps,
        MigrationCap, //
    }, //
};

use crate::{
    container::{
        Container,
        Layout, //
    },
    dirty::bitmap::MAX_BYTES, //
};

impl Container {
    /// Handles `VFIO_CHECK_EXTENSION`. `this` is `None` for a container that has no backend yet.
    pub(crate) fn extension(this: Option<&Self>, extension: usize) -> bool {
        let Ok(extension) = u32::try_from(extension) else {
            return false;
        };
        // When the last group has been detached, the container is about to lose its backend.
        let with_groups = |answer: fn(&Layout) -> bool| {
            this.is_some_and(|this| {
                let look = this.space.look();
                look.layout().check_used().is_ok() && answer(look.layout())
            })
        };
        match extension {
            bindings::VFIO_TYPE1_IOMMU
            | bindings::VFIO_TYPE1v2_IOMMU
            | bindings::VFIO_UNMAP_ALL => true,
            bindings::VFIO_UPDATE_VADDR => with_groups(|layout| layout.emulated.is_empty()),
            bindings::VFIO_DMA_CC_IOMMU => with_groups(Layout::enforces_coherency),
            _ => false,
        }
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
        let ranges = &layout.ranges;
        let mut caps = InfoCaps::with_capacity(
            size_of::<MigrationCap>()
                + size_of::<vfio_iommu_type1_info_dma_avail>().next_multiple_of(8)
                + size_of::<vfio_iommu_type1_info_cap_iova_range>()
                + ranges.len() * size_of::<vfio_iova_range>(),
        )?;
        caps.push(&MigrationCap::new(layout.page_size(), MAX_BYTES))?;
        caps.push(&vfio_iommu_type1_info_dma_avail {
            avail: self.limit.saturating_sub(look.dmas().len() as u32),
            ..Default::default()
        })?;
        if !ranges.is_empty() {
            let cap = vfio_iommu_type1_info_cap_iova_range {
                nr_iovas: ranges.len() as u32,
                ..Default::default()
            };
            let ranges = ranges.iter().map(|range| vfio_iova_range {
                start: range.start,
                end: range.last,
            });
            caps.push_with(&cap, ranges)?;
        }
        Ok((page_sizes, caps))
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_type1_info)]
mod tests {
    use kernel_ext::{
        iommu::SoftwareGroup,
        iommu_driver::NewGroup, //
    };

    use super::*;

    /// The container has its backend for a moment longer than its last group. The answers change
    /// once, not twice.
    #[test]
    fn extensions_need_groups() -> Result {
        let container = Container::new(true)?;
        let answers_as_none = || {
            (0..64).all(|extension| {
                Container::extension(Some(&*container), extension)
                    == Container::extension(None, extension)
            })
        };
        assert!(answers_as_none());
        let group = SoftwareGroup::new(c"vfio_type1_info")?;
        container.attach(NewGroup::emulated(&group))?;
        assert!(Container::extension(
            Some(&*container),
            bindings::VFIO_DMA_CC_IOMMU as usize
        ));
        container.detach(&group);
        assert!(answers_as_none());
        Ok(())
    }
}
