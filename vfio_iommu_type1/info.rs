// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_GET_INFO` and `VFIO_CHECK_EXTENSION`.

use core::mem::size_of;

use kernel::{
    prelude::*,
    transmute::AsBytes,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use kernel_ext::bindings;

use crate::{
    abi::Info,
    bitmap::MAX_BYTES,
    caps::{
        words,
        Chain, //
    },
    container::Container, //
};

/// The size of the part of the structure that every version of the interface has.
const MIN_SIZE: usize = core::mem::offset_of!(bindings::vfio_iommu_type1_info, cap_offset);

/// The number of words of all capabilities except the IOVA ranges.
const OTHERS: usize = 16;

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
        let mut domains = look.layout().set().iter();
        domains.all(|domain| domain.enforces_coherency())
    }

    /// Handles `VFIO_IOMMU_GET_INFO`.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the argument cannot be read or written, `EINVAL` if `argsz` is too small or the
    /// last group is detached, `ENOMEM`.
    pub(crate) fn ioctl_info(&self, arg: UserPtr) -> Result<isize> {
        let [argsz, ..]: [u32; MIN_SIZE / 4] = UserSlice::new(arg, MIN_SIZE).reader().read()?;
        let room = argsz as usize;
        if room < MIN_SIZE {
            return Err(EINVAL);
        }
        let (page_sizes, chain) = self.describe()?;
        let caps = chain.as_bytes();
        let full = size_of::<Info>() + caps.len();
        let mut info = Info::default();
        info.0.argsz = argsz;
        info.0.flags = bindings::VFIO_IOMMU_INFO_PGSIZES | bindings::VFIO_IOMMU_INFO_CAPS;
        info.0.iova_pgsizes = page_sizes;
        if room < full {
            info.0.argsz = full as u32;
        } else {
            info.0.cap_offset = size_of::<Info>() as u32;
            UserSlice::new(arg.wrapping_byte_add(size_of::<Info>()), caps.len())
                .writer()
                .write_slice(caps)?;
        }
        let size = room.min(size_of::<Info>());
        let known = info.as_bytes().get(..size).ok_or(EINVAL)?;
        UserSlice::new(arg, size).writer().write_slice(known)?;
        Ok(0)
    }

    /// Returns the supported page sizes and the capability chain.
    fn describe(&self) -> Result<(u64, Chain)> {
        let look = self.space.look();
        let layout = look.layout();
        layout.check_used()?;
        let page_sizes = layout.set().page_sizes();
        let ranges = &layout.ranges;
        let mut chain = Chain::new(size_of::<Info>(), OTHERS + 4 * ranges.len())?;
        let ([low, high], [max, _]) = (words(layout.page_size()), words(MAX_BYTES));
        chain.add(
            bindings::VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION as u16,
            1,
            &[0, 0, low, high, max, 0],
        )?;
        chain.add(
            bindings::VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL as u16,
            1,
            &[self.limit.saturating_sub(look.mappings() as u32)],
        )?;
        if !ranges.is_empty() {
            let ends = ranges.iter().flat_map(|range| [range.start, range.last]);
            chain.add_iter(
                bindings::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE as u16,
                1,
                Iterator::chain([ranges.len() as u32, 0].into_iter(), ends.flat_map(words)),
            )?;
        }
        Ok((page_sizes, chain))
    }
}
