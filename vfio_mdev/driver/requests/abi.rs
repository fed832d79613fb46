// SPDX-License-Identifier: GPL-2.0

//! `struct vfio_device_ops` of a driver's devices.
//!
//! Only generic code calls the functions of `vfio.ko`, and it is compiled into the driver that uses
//! it. Therefore the driver depends on `vfio.ko`, like drivers in C, and the bus does not.

use core::marker::PhantomData;

use kernel::{
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_char,
        c_int,
        c_long,
        c_uint,
        c_ulong, //
    },
    mm::virt::{
        flags,
        VmaNew, //
    },
    prelude::*,
    uaccess::UserPtr, //
};
use kernel_ext::{
    bindings,
    iova::Range, //
};

use crate::{
    driver::{
        Device,
        Index,
        Parent, //
    },
    instance::Instance, //
};

/// The callbacks from VFIO.
///
/// VFIO calls all of them with the `struct vfio_device` of an [`Instance<D>`].
pub(crate) struct Ops<D>(PhantomData<D>);

impl<D: Device> Ops<D> {
    pub(crate) const TABLE: &'static bindings::vfio_device_ops = &bindings::vfio_device_ops {
        name: <D::Parent as Parent>::NAME.as_ptr().cast_mut().cast(),
        release: Some(Self::release_callback),
        open_device: Some(Self::open_callback),
        close_device: Some(Self::close_callback),
        read: Some(Self::read_callback),
        write: Some(Self::write_callback),
        ioctl: Some(Self::ioctl_callback),
        get_region_info_caps: Some(Self::region_info_callback),
        mmap: Some(Self::mmap_callback),
        dma_unmap: Some(Self::dma_unmap_callback),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// See [`Ops`]. No reference to the device exists any more.
    unsafe extern "C" fn release_callback(device: *mut bindings::vfio_device) {
        // SAFETY: By this function's contract.
        unsafe { Instance::<D>::release(device.cast()) };
    }

    /// # Safety
    ///
    /// See [`Ops`]. This is the first open.
    unsafe extern "C" fn open_callback(device: *mut bindings::vfio_device) -> c_int {
        // SAFETY: By this function's contract.
        let this = unsafe { Instance::<D>::from_raw(device) };
        from_result(|| {
            this.begin_session()?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Ops`]. This is the last close.
    unsafe extern "C" fn close_callback(device: *mut bindings::vfio_device) {
        // SAFETY: By this function's contract.
        let this = unsafe { Instance::<D>::from_raw(device) };
        D::closed(this);
        this.end_session();
    }

    /// # Safety
    ///
    /// See [`Ops`]. The device is open, and `pos` is valid.
    unsafe extern "C" fn read_callback(
        device: *mut bindings::vfio_device,
        buf: *mut c_char,
        count: usize,
        pos: *mut i64,
    ) -> isize {
        // SAFETY: By this function's contract.
        let (this, pos) = unsafe { (Instance::<D>::from_raw(device), &mut *pos) };
        let to = UserPtr::from_ptr(buf.cast());
        from_result(|| {
            let done = super::read(this, to, count, *pos)?;
            *pos += done as i64;
            Ok(done as isize)
        })
    }

    /// # Safety
    ///
    /// See [`Ops`]. The device is open, and `pos` is valid.
    unsafe extern "C" fn write_callback(
        device: *mut bindings::vfio_device,
        buf: *const c_char,
        count: usize,
        pos: *mut i64,
    ) -> isize {
        // SAFETY: By this function's contract.
        let (this, pos) = unsafe { (Instance::<D>::from_raw(device), &mut *pos) };
        let from = UserPtr::from_ptr(buf.cast_mut().cast());
        from_result(|| {
            let done = super::write(this, from, count, *pos)?;
            *pos += done as i64;
            Ok(done as isize)
        })
    }

    /// # Safety
    ///
    /// See [`Ops`]. The device is open.
    unsafe extern "C" fn ioctl_callback(
        device: *mut bindings::vfio_device,
        cmd: c_uint,
        arg: c_ulong,
    ) -> c_long {
        // SAFETY: By this function's contract.
        let this = unsafe { Instance::<D>::from_raw(device) };
        from_result(|| super::ioctl(this, cmd, UserPtr::from_addr(arg)))
    }

    /// # Safety
    ///
    /// See [`Ops`]. The device is open, and `info` is valid.
    unsafe extern "C" fn region_info_callback(
        device: *mut bindings::vfio_device,
        info: *mut bindings::vfio_region_info,
        _caps: *mut bindings::vfio_info_cap,
    ) -> c_int {
        // SAFETY: By this function's contract.
        let (this, info) = unsafe { (Instance::<D>::from_raw(device), &mut *info) };
        from_result(|| super::region_info::<D>(this, info).map(|()| 0))
    }

    /// # Safety
    ///
    /// See [`Ops`]. The device is open, and `vma` is being set up.
    unsafe extern "C" fn mmap_callback(
        device: *mut bindings::vfio_device,
        vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        // SAFETY: By this function's contract.
        let (this, page_offset) =
            unsafe { (Instance::<D>::from_raw(device), (*vma).vm_pgoff as u64) };
        // SAFETY: By this function's contract.
        let vma = unsafe { VmaNew::from_raw(vma) };
        from_result(|| {
            if vma.flags() & flags::SHARED == 0 {
                return Err(EINVAL);
            }
            let len = vma.end() - vma.start();
            let mapped = super::mapped::<D>(this, page_offset, len, vma.writable())?;
            if !mapped.writable {
                vma.try_clear_maywrite()?;
            }
            // SAFETY: The mapping holds a reference to the file, which keeps the device open. The
            // memory is borrowed from the `D`, which is neither moved nor dropped before the device
            // is released.
            unsafe { mapped.memory.map(mapped.offset, vma) }?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Ops`]. The device is open.
    unsafe extern "C" fn dma_unmap_callback(
        device: *mut bindings::vfio_device,
        iova: u64,
        size: u64,
    ) {
        // SAFETY: By this function's contract.
        let this = unsafe { Instance::<D>::from_raw(device) };
        D::unmapped(this, iova, size);
        let iovas = Range {
            start: iova,
            last: iova.saturating_add(size.saturating_sub(1)),
        };
        this.unpin(iovas);
    }
}

/// Returns the size of the data that follow a `VFIO_DEVICE_SET_IRQS` request, in bytes. The request
/// is for an interrupt type with `vectors` vectors.
///
/// # Errors
///
/// `EINVAL` if the request is malformed.
pub(super) fn irq_set_data_size<D: Device>(
    header: &mut bindings::vfio_irq_set,
    vectors: u32,
) -> Result<usize> {
    let mut size = 0;
    // SAFETY: Both pointers are valid.
    to_result(unsafe {
        bindings::vfio_set_irqs_validate_and_prepare(
            header,
            vectors as c_int,
            D::Irq::COUNT as c_int,
            &raw mut size,
        )
    })?;
    Ok(size)
}
