// SPDX-License-Identifier: GPL-2.0

//! Drivers of devices that userspace uses through VFIO: `struct vfio_device` and its operations.
//!
//! A driver implements [`Operations`] for the data that it keeps for a device. VFIO stores the data
//! in a [`Device`], behind the C structure. A driver of platform devices also implements [`Probe`],
//! and registers a [`PlatformDriver`]. `vfio_mdev` builds mediated devices on it.
//!
//! All of these devices are emulated: they do no DMA of their own, and their drivers access the
//! memory that userspace mapped in a container or in an iommufd.
//!
//! Only generic code calls the functions of `vfio.ko`, and it is compiled into the module that uses
//! it. Therefore the driver depends on `vfio.ko`, like drivers in C, and `vfio_rust.ko` does not.
//!
//! C header: [`include/linux/vfio.h`](srctree/include/linux/vfio.h)

mod platform_driver;

use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    }, //
};

use kernel::{
    device,
    error::{
        from_err_ptr,
        from_result,
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    ffi::{
        c_char,
        c_int,
        c_long,
        c_uint,
        c_ulong, //
    },
    mm::virt::VmaNew,
    prelude::*,
    sync::aref::{
        ARef,
        AlwaysRefCounted, //
    },
    types::Opaque,
    uaccess::UserPtr, //
};

use crate::bindings;

pub use platform_driver::{
    PlatformDriver,
    Probe,
    Registration, //
};

/// The operations on a device, implemented for the data that the driver keeps for it.
///
/// VFIO calls [`open`](Self::open) first and [`close`](Self::close) last; the others are called
/// only in between, except for [`dma_unmap`](Self::dma_unmap). All of them may sleep. Several
/// threads can call `read`, `write`, `ioctl`, `region_info` and `mmap` at the same time.
#[vtable]
pub trait Operations: Send + Sync + Sized + 'static {
    /// The name of the driver.
    const NAME: &'static CStr;

    /// Called when the first file of the device was opened.
    ///
    /// # Errors
    ///
    /// The open fails with the error, and the device stays closed.
    fn open(this: &Device<Self>) -> Result;

    /// Called when the last file of the device is being closed.
    fn close(this: &Device<Self>);

    /// Reads up to `count` bytes at `pos` of the device file. Returns the number of bytes.
    ///
    /// # Errors
    ///
    /// The `read()` of the process fails with the error.
    fn read(this: &Device<Self>, to: UserPtr, count: usize, pos: i64) -> Result<usize>;

    /// Writes up to `count` bytes at `pos` of the device file. Returns the number of bytes.
    ///
    /// # Errors
    ///
    /// The `write()` of the process fails with the error.
    fn write(this: &Device<Self>, from: UserPtr, count: usize, pos: i64) -> Result<usize>;

    /// Handles an ioctl that VFIO does not implement. Returns its result.
    ///
    /// # Errors
    ///
    /// The `ioctl()` of the process fails with the error: `ENOTTY` for an unknown request.
    fn ioctl(this: &Device<Self>, cmd: u32, arg: UserPtr) -> Result<isize>;

    /// Describes region `info.index` for `VFIO_DEVICE_GET_REGION_INFO`.
    ///
    /// # Errors
    ///
    /// The `ioctl()` of the process fails with the error: `EINVAL` for an unknown region.
    fn region_info(this: &Device<Self>, info: &mut bindings::vfio_region_info) -> Result;

    /// Maps the device file from page `page_offset` on.
    ///
    /// # Errors
    ///
    /// The `mmap()` of the process fails with the error.
    fn mmap(_this: &Device<Self>, _vma: &VmaNew, _page_offset: u64) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called when the process unmaps `size` bytes at `iova`. When it returns, no page in this
    /// range is pinned by the device. Only drivers with this function can pin pages.
    ///
    /// If the device is used with an iommufd, this may also be called before `open` and after
    /// `close`: closing the device unmaps everything.
    fn dma_unmap(_this: &Device<Self>, _iova: u64, _size: u64) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// A `struct vfio_device` together with the data of its driver.
///
/// It dereferences to `T`; [`ARef`] counts references to it. The `T` is dropped with the last
/// reference.
///
/// # Invariants
///
/// `_vfio_alloc_device()` returned the structure, with the operations of `T`. `data` is
/// initialised, and does not move.
#[repr(C)]
pub struct Device<T> {
    vfio: Opaque<bindings::vfio_device>,
    /// Whether `data` must be dropped.
    ready: AtomicBool,
    data: MaybeUninit<T>,
}

// SAFETY: VFIO synchronises access to the C structure. Any thread may use and drop the data.
unsafe impl<T: Operations> Send for Device<T> {}
// SAFETY: As above.
unsafe impl<T: Operations> Sync for Device<T> {}

// SAFETY: The functions count references to the `struct device`, whose release function frees the
// rest.
unsafe impl<T: Operations> AlwaysRefCounted for Device<T> {
    fn inc_ref(&self) {
        // SAFETY: A shared reference implies a non-zero reference count.
        unsafe { bindings::get_device(&raw mut (*self.as_ptr()).device) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        let vfio: *mut bindings::vfio_device = obj.cast().as_ptr();
        // SAFETY: By this function's contract.
        unsafe { bindings::put_device(&raw mut (*vfio).device) };
    }
}

impl<T> Deref for Device<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant.
        unsafe { self.data.assume_init_ref() }
    }
}

impl<T: Operations> Device<T> {
    /// Allocates a device on `dev`, which is not registered yet.
    ///
    /// # Errors
    ///
    /// Those of `data`; `ENOMEM`.
    fn new(dev: &device::Device, data: impl PinInit<T, Error>) -> Result<ARef<Self>> {
        // SAFETY: The closure doesn't use the device.
        unsafe { Self::new_cyclic(dev, |_| Ok(data)) }
    }

    /// Like `new`, but the data can refer to the device.
    ///
    /// # Errors
    ///
    /// Those of `data` and of the initialiser that it returns; `ENOMEM`.
    ///
    /// # Safety
    ///
    /// `data` and the initialiser don't dereference the device, as its data are not initialised,
    /// and don't keep a counted reference to it if they fail.
    pub unsafe fn new_cyclic<I: PinInit<T, Error>>(
        dev: &device::Device,
        data: impl FnOnce(&Self) -> Result<I>,
    ) -> Result<ARef<Self>> {
        const {
            // The alignment that `kvzalloc()` guarantees.
            assert!(align_of::<Self>() <= align_of::<u64>());
        }
        let dev = core::ptr::from_ref(dev).cast_mut().cast();
        // SAFETY: `dev` is a valid device, and the table is static.
        let vfio =
            unsafe { bindings::_vfio_alloc_device(size_of::<Self>(), dev, VTable::<T>::TABLE) };
        let memory: NonNull<Self> = NonNull::new(from_err_ptr(vfio)?).ok_or(ENOMEM)?.cast();
        // SAFETY: The function returned a counted reference to zeroed memory of this size.
        // `release_callback` does not drop data that are not ready.
        let this = unsafe { ARef::from_raw(memory) };
        let data = data(&this)?;
        // SAFETY: The memory is valid.
        let slot = unsafe { &raw mut (*memory.as_ptr()).data };
        // SAFETY: No other reference to the memory exists, and it does not move until it is dropped
        // in place.
        unsafe { crate::compat::raw_try_init(slot.cast::<T>(), data) }?;
        // INVARIANT: `data` was just initialised.
        this.ready.store(true, Ordering::Relaxed);
        Ok(this)
    }

    /// # Safety
    ///
    /// `vfio` is the C structure of a `Device<T>`, and stays allocated for all of `'a`.
    unsafe fn from_raw<'a>(vfio: *mut bindings::vfio_device) -> &'a Self {
        // SAFETY: By this function's contract.
        unsafe { &*vfio.cast() }
    }

    /// Returns the C structure.
    pub fn as_ptr(&self) -> *mut bindings::vfio_device {
        self.vfio.get()
    }

    /// Returns the size of the data that follow a `VFIO_DEVICE_SET_IRQS` request, in bytes. The
    /// device has `types` interrupt types, and the type of the request has `vectors` vectors.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the request is malformed.
    pub fn irq_data_size(
        &self,
        header: &mut bindings::vfio_irq_set,
        vectors: u32,
        types: u32,
    ) -> Result<usize> {
        let mut size = 0;
        // SAFETY: Both pointers are valid.
        to_result(unsafe {
            bindings::vfio_set_irqs_validate_and_prepare(
                header,
                vectors as c_int,
                types as c_int,
                &raw mut size,
            )
        })?;
        Ok(size)
    }
}

/// The callbacks for C.
///
/// VFIO calls them with the C structure of a [`Device<T>`].
struct VTable<T>(PhantomData<T>);

impl<T: Operations> VTable<T> {
    const TABLE: &'static bindings::vfio_device_ops = &bindings::vfio_device_ops {
        name: T::NAME.as_ptr().cast_mut().cast(),
        release: Some(Self::release_callback),
        #[cfg(CONFIG_IOMMUFD)]
        bind_iommufd: Some(bindings::vfio_iommufd_emulated_bind),
        #[cfg(CONFIG_IOMMUFD)]
        unbind_iommufd: Some(bindings::vfio_iommufd_emulated_unbind),
        #[cfg(CONFIG_IOMMUFD)]
        attach_ioas: Some(bindings::vfio_iommufd_emulated_attach_ioas),
        #[cfg(CONFIG_IOMMUFD)]
        detach_ioas: Some(bindings::vfio_iommufd_emulated_detach_ioas),
        open_device: Some(Self::open_callback),
        close_device: Some(Self::close_callback),
        read: Some(Self::read_callback),
        write: Some(Self::write_callback),
        ioctl: Some(Self::ioctl_callback),
        get_region_info_caps: Some(Self::region_info_callback),
        mmap: if T::HAS_MMAP {
            Some(Self::mmap_callback)
        } else {
            None
        },
        dma_unmap: if T::HAS_DMA_UNMAP {
            Some(Self::dma_unmap_callback)
        } else {
            None
        },
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// See [`VTable`]. No reference to the device exists any more. The initialisation of its data
    /// may have failed.
    unsafe extern "C" fn release_callback(vfio: *mut bindings::vfio_device) {
        let this: *mut Device<T> = vfio.cast();
        // SAFETY: By this function's contract. Zeroed memory is a valid `ready`.
        unsafe {
            if *(*this).ready.get_mut() {
                (*this).data.assume_init_drop();
            }
        }
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn open_callback(vfio: *mut bindings::vfio_device) -> c_int {
        // SAFETY: By this function's contract.
        let this = unsafe { Device::<T>::from_raw(vfio) };
        from_result(|| T::open(this).map(|()| 0))
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn close_callback(vfio: *mut bindings::vfio_device) {
        // SAFETY: By this function's contract.
        T::close(unsafe { Device::<T>::from_raw(vfio) });
    }

    /// # Safety
    ///
    /// See [`VTable`]; `pos` is valid.
    unsafe extern "C" fn read_callback(
        vfio: *mut bindings::vfio_device,
        buf: *mut c_char,
        count: usize,
        pos: *mut i64,
    ) -> isize {
        // SAFETY: By this function's contract.
        let (this, pos) = unsafe { (Device::<T>::from_raw(vfio), &mut *pos) };
        from_result(|| {
            let done = T::read(this, UserPtr::from_ptr(buf.cast()), count, *pos)?;
            *pos = pos.saturating_add_unsigned(done as u64);
            Ok(done as isize)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`]; `pos` is valid.
    unsafe extern "C" fn write_callback(
        vfio: *mut bindings::vfio_device,
        buf: *const c_char,
        count: usize,
        pos: *mut i64,
    ) -> isize {
        // SAFETY: By this function's contract.
        let (this, pos) = unsafe { (Device::<T>::from_raw(vfio), &mut *pos) };
        from_result(|| {
            let from = UserPtr::from_ptr(buf.cast_mut().cast());
            let done = T::write(this, from, count, *pos)?;
            *pos = pos.saturating_add_unsigned(done as u64);
            Ok(done as isize)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn ioctl_callback(
        vfio: *mut bindings::vfio_device,
        cmd: c_uint,
        arg: c_ulong,
    ) -> c_long {
        // SAFETY: By this function's contract.
        let this = unsafe { Device::<T>::from_raw(vfio) };
        from_result(|| T::ioctl(this, cmd, UserPtr::from_addr(arg)))
    }

    /// # Safety
    ///
    /// See [`VTable`]; `info` is valid.
    unsafe extern "C" fn region_info_callback(
        vfio: *mut bindings::vfio_device,
        info: *mut bindings::vfio_region_info,
        _caps: *mut bindings::vfio_info_cap,
    ) -> c_int {
        // SAFETY: By this function's contract.
        let (this, info) = unsafe { (Device::<T>::from_raw(vfio), &mut *info) };
        from_result(|| T::region_info(this, info).map(|()| 0))
    }

    /// # Safety
    ///
    /// See [`VTable`]; `vma` is being set up.
    unsafe extern "C" fn mmap_callback(
        vfio: *mut bindings::vfio_device,
        vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        // SAFETY: By this function's contract.
        let (this, page_offset) = unsafe { (Device::<T>::from_raw(vfio), (*vma).vm_pgoff as u64) };
        // SAFETY: By this function's contract.
        let vma = unsafe { VmaNew::from_raw(vma) };
        from_result(|| T::mmap(this, vma, page_offset).map(|()| 0))
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn dma_unmap_callback(
        vfio: *mut bindings::vfio_device,
        iova: u64,
        size: u64,
    ) {
        // SAFETY: By this function's contract.
        T::dma_unmap(unsafe { Device::<T>::from_raw(vfio) }, iova, size);
    }
}
