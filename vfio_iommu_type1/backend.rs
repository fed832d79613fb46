// SPDX-License-Identifier: GPL-2.0

//! The callbacks of the backend.

use kernel::{
    ffi::{
        c_int,
        c_long,
        c_ulong, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    uaccess::UserPtr,
    warn_on, //
};

use kernel_ext::{
    bindings,
    iommu::{
        Attachment,
        Group,
        Prot, //
    },
    iommu_driver::{
        Backend,
        DeviceList,
        Filled,
        NewGroup,
        PageSlots,
        Transfer, //
    },
    iova::Range,
    uapi::ioctl, //
};

use crate::container::{
    self,
    Container, //
};

#[vtable]
impl Backend for Container {
    type OwnerModule = crate::LocalModule;
    const NAME: &'static CStr = c"vfio-iommu-type1";

    fn open(kind: c_ulong) -> Result<Arc<Self>> {
        let v2 = match u32::try_from(kind).map_err(|_| EINVAL)? {
            bindings::VFIO_TYPE1_IOMMU => false,
            bindings::VFIO_TYPE1v2_IOMMU | bindings::__VFIO_RESERVED_TYPE1_NESTING_IOMMU => true,
            _ => return Err(EINVAL),
        };
        let container = Self::new(v2)?;
        container::add_to_list(&container)?;
        Ok(container)
    }

    fn release(this: Arc<Self>) {
        container::remove_from_list(&this);
    }

    fn check_extension(this: Option<&Self>, extension: c_ulong) -> c_long {
        c_long::from(Self::extension(this, extension))
    }

    fn ioctl(this: ArcBorrow<'_, Self>, cmd: u32, arg: UserPtr) -> Result<c_long> {
        match cmd {
            ioctl::VFIO_IOMMU_GET_INFO => this.ioctl_info(arg),
            ioctl::VFIO_IOMMU_MAP_DMA => this.stats.map.measure(|| this.ioctl_map(arg)),
            ioctl::VFIO_IOMMU_UNMAP_DMA => this.stats.unmap.measure(|| this.ioctl_unmap(arg)),
            ioctl::VFIO_IOMMU_DIRTY_PAGES => this.ioctl_dirty(arg),
            _ => Err(ENOTTY),
        }
    }

    fn attach_group(this: ArcBorrow<'_, Self>, group: NewGroup<'_>) -> Result {
        this.stats.groups.measure(|| this.attach(group))
    }

    fn detach_group(this: ArcBorrow<'_, Self>, group: &Group) {
        this.stats.groups.measure(|| this.detach(group));
    }

    fn pin_pages<'a>(
        this: ArcBorrow<'_, Self>,
        group: &Group,
        iova: u64,
        prot: Prot,
        pages: PageSlots<'a>,
    ) -> Result<Filled<'a>> {
        this.pin(group, iova, prot, pages)
    }

    fn unpin_pages(this: ArcBorrow<'_, Self>, iova: u64, npage: c_int) {
        let count = usize::try_from(npage).unwrap_or(0);
        match Range::of_size(iova, count as u64 * PAGE_SIZE as u64) {
            Ok(range) if this.v2 => {
                let unpinned = this.unpin(range, count);
                warn_on!(unpinned != count);
            }
            _ => {
                warn_on!(true);
            }
        }
    }

    fn device_list(this: &Self) -> &Arc<DeviceList> {
        &this.devices
    }

    fn dma_rw(this: ArcBorrow<'_, Self>, iova: u64, data: Transfer<'_>) -> Result {
        this.copy(iova, data)
    }

    fn group_iommu_domain<R>(
        this: ArcBorrow<'_, Self>,
        group: &Group,
        answer: impl FnOnce(&Attachment) -> R,
    ) -> Result<R> {
        let look = this.space.look();
        let mut domains = look.layout().domains.iter();
        domains
            .find_map(|domain| domain.groups.get(domain.position(group)?))
            .map(|member| answer(&member.attachment))
            .ok_or(ENODEV)
    }
}
