// SPDX-License-Identifier: GPL-2.0

//! The operations of VFIO on a driver's devices.

use kernel::{
    mm::virt::{
        flags,
        VmaNew, //
    },
    prelude::*,
    uaccess::UserPtr, //
};
use kernel_ext::{
    bindings,
    iova::Range,
    vfio_device::{
        self,
        Operations, //
    }, //
};

use crate::{
    driver::{
        Device,
        Parent, //
    },
    instance::{
        Content,
        Instance, //
    }, //
};

#[vtable]
impl<D: Device> Operations for Content<D> {
    const NAME: &'static CStr = <D::Parent as Parent>::NAME;

    fn open(this: &vfio_device::Device<Self>) -> Result {
        Instance::of(this).begin_session()
    }

    fn close(this: &vfio_device::Device<Self>) {
        let this = Instance::of(this);
        D::closed(this);
        this.end_session();
    }

    fn read(
        this: &vfio_device::Device<Self>,
        to: UserPtr,
        count: usize,
        pos: i64,
    ) -> Result<usize> {
        super::read(Instance::of(this), to, count, pos)
    }

    fn write(
        this: &vfio_device::Device<Self>,
        from: UserPtr,
        count: usize,
        pos: i64,
    ) -> Result<usize> {
        super::write(Instance::of(this), from, count, pos)
    }

    fn ioctl(this: &vfio_device::Device<Self>, cmd: u32, arg: UserPtr) -> Result<isize> {
        super::ioctl(Instance::of(this), cmd, arg)
    }

    fn region_info(
        this: &vfio_device::Device<Self>,
        info: &mut bindings::vfio_region_info,
    ) -> Result {
        super::region_info::<D>(Instance::of(this), info)
    }

    fn mmap(this: &vfio_device::Device<Self>, vma: &VmaNew, page_offset: u64) -> Result {
        if vma.flags() & flags::SHARED == 0 {
            return Err(EINVAL);
        }
        let len = vma.end() - vma.start();
        let mapped = super::mapped::<D>(Instance::of(this), page_offset, len, vma.writable())?;
        if !mapped.writable {
            vma.try_clear_maywrite()?;
        }
        // SAFETY: The mapping holds a reference to the file, which keeps the device open. The
        // memory is borrowed from the `D`, which is neither moved nor dropped before the device
        // is released.
        unsafe { mapped.memory.map(mapped.offset, vma) }
    }

    fn dma_unmap(this: &vfio_device::Device<Self>, iova: u64, size: u64) {
        let this = Instance::of(this);
        D::unmapped(this, iova, size);
        this.unpin(Range {
            start: iova,
            last: iova.saturating_add(size.saturating_sub(1)),
        });
    }
}
