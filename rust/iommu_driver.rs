// SPDX-License-Identifier: GPL-2.0

//! IOMMU backends of VFIO containers.
//!
//! A container knows its IOMMU only through `struct vfio_iommu_driver_ops`, which a backend hands to
//! `vfio_register_iommu_driver()`. The structure is private to `drivers/vfio`, but both functions are
//! exported, so its layout is an ABI between `vfio.ko` and the backends: [`Ops`] is that layout. A
//! backend in Rust implements [`Backend`], and [`Table`] makes the callbacks of it.
//!
//! C header: `drivers/vfio/vfio.h`

mod args;
mod callbacks;
mod devices;

use core::marker::PhantomData;

use kernel::{
    error::{
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    ffi::{
        c_char,
        c_int,
        c_long,
        c_uint,
        c_ulong,
        c_void, //
    },
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    uaccess::UserPtr, //
};

use crate::{
    bindings,
    iommu::{
        DomainPtr,
        Group,
        Prot, //
    }, //
};

pub use args::{
    GroupKind,
    PageSlots,
    Transfer, //
};

pub use devices::{
    LockedDevices,
    UserDevice,
    UserDevices, //
};

/// What a backend can do for a container: `struct vfio_iommu_driver_ops`.
///
/// A callback that is `None` is one that the backend does not have. `iommu_data` is what `open`
/// returned; the core passes it to `release` once, after every other callback has returned.
#[repr(C)]
pub struct Ops {
    /// Name of the backend, null-terminated.
    pub name: *const c_char,
    /// The module to pin while a container uses the backend.
    pub owner: *mut bindings::module,
    /// Makes the backend's state for a container of the given extension, or an `ERR_PTR`.
    pub open: Option<unsafe extern "C" fn(c_ulong) -> *mut c_void>,
    /// Destroys what `open` made.
    pub release: Option<unsafe extern "C" fn(*mut c_void)>,
    /// Handles an ioctl of the container; the data is null for `VFIO_CHECK_EXTENSION` of a container
    /// which has no backend yet.
    pub ioctl: Option<unsafe extern "C" fn(*mut c_void, c_uint, c_ulong) -> c_long>,
    /// Puts a group behind the container's address space. The last argument is a [`GroupKind`].
    pub attach_group:
        Option<unsafe extern "C" fn(*mut c_void, *mut bindings::iommu_group, c_uint) -> c_int>,
    /// Takes a group out again.
    pub detach_group: Option<unsafe extern "C" fn(*mut c_void, *mut bindings::iommu_group)>,
    /// Pins user pages for a device without an IOMMU of its own.
    pub pin_pages: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *mut bindings::iommu_group,
            bindings::dma_addr_t,
            c_int,
            c_int,
            *mut *mut bindings::page,
        ) -> c_int,
    >,
    /// Unpins pages of `pin_pages`.
    pub unpin_pages: Option<unsafe extern "C" fn(*mut c_void, bindings::dma_addr_t, c_int)>,
    /// Tells of a device that was opened.
    pub register_device: Option<unsafe extern "C" fn(*mut c_void, *mut bindings::vfio_device)>,
    /// Tells of a device that is being closed.
    pub unregister_device: Option<unsafe extern "C" fn(*mut c_void, *mut bindings::vfio_device)>,
    /// Reads or writes user memory by device address.
    pub dma_rw: Option<
        unsafe extern "C" fn(*mut c_void, bindings::dma_addr_t, *mut c_void, usize, bool) -> c_int,
    >,
    /// Finds the domain of a group, or an `ERR_PTR`.
    pub group_iommu_domain: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *mut bindings::iommu_group,
        ) -> *mut bindings::iommu_domain,
    >,
}

// SAFETY: `Ops` is a table of constants: its pointers are to a static string and to a module, and
// nothing writes through them.
unsafe impl Sync for Ops {}

// SAFETY: As for `Sync`; nothing in the table belongs to a thread.
unsafe impl Send for Ops {}

/// An IOMMU backend: one instance serves one container.
///
/// The core calls `attach_group` before anything else of a new instance, and drops its reference
/// when the last group has left. All methods may sleep.
#[vtable]
pub trait Backend: Send + Sync + Sized + 'static {
    /// The backend's name, for the core's messages.
    const NAME: &'static CStr;

    /// Makes the state of a container that chose extension `kind` (a `VFIO_*_IOMMU` number).
    ///
    /// # Errors
    ///
    /// `EINVAL` if the backend doesn't have this extension; `ENOMEM`.
    fn open(kind: c_ulong) -> Result<Arc<Self>>;

    /// Takes back what `open` made: no other method is called for it any more.
    fn release(this: Arc<Self>) {
        drop(this);
    }

    /// Answers `VFIO_CHECK_EXTENSION`; `this` is `None` while the container has no backend.
    fn check_extension(this: Option<&Self>, extension: c_ulong) -> c_long;

    /// Handles every other ioctl of the container, `arg` being its argument.
    ///
    /// # Errors
    ///
    /// `ENOTTY` for a command that the backend does not know, else those of the command.
    fn ioctl(this: ArcBorrow<'_, Self>, cmd: u32, arg: UserPtr) -> Result<c_long>;

    /// Puts `group` behind the container's address space.
    ///
    /// # Errors
    ///
    /// Those of the backend; then the group is where it was.
    fn attach_group(this: ArcBorrow<'_, Self>, group: &Group, kind: GroupKind) -> Result;

    /// Takes `group` out of the address space.
    fn detach_group(this: ArcBorrow<'_, Self>, group: &Group);

    /// Pins the pages behind `iova`, as many as `pages` has slots, for accesses by `prot`.
    ///
    /// Fills every slot, or none.
    ///
    /// # Errors
    ///
    /// Those of `vfio_pin_pages()`.
    fn pin_pages(
        _this: ArcBorrow<'_, Self>,
        _group: &Group,
        _iova: u64,
        _prot: Prot,
        _pages: &mut PageSlots<'_>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Undoes one [`pin_pages`](Backend::pin_pages) of `npage` pages from `iova` on.
    fn unpin_pages(_this: ArcBorrow<'_, Self>, _iova: u64, _npage: c_int) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Where the open devices are kept whose drivers may pin pages.
    fn user_devices(_this: &Self) -> &UserDevices {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Copies between a buffer of the kernel and the user memory mapped at `iova`.
    ///
    /// # Errors
    ///
    /// Those of `vfio_dma_rw()`.
    fn dma_rw(_this: ArcBorrow<'_, Self>, _iova: u64, _data: Transfer<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Finds the domain that translates for `group`.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the group isn't in this address space or has no IOMMU.
    fn group_iommu_domain(_this: ArcBorrow<'_, Self>, _group: &Group) -> Result<DomainPtr> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The callbacks of backend `B`; make it a `static`, for the core knows a backend by the address.
pub struct Table<B>(Ops, PhantomData<fn() -> B>);

impl<B> Table<B> {
    /// The table as the core sees it.
    pub fn ops(&'static self) -> &'static Ops {
        &self.0
    }
}

/// The backend's entry in the core's list of backends; dropping it takes the entry out.
///
/// It is the first field of a module's data, so that no container finds the backend any more when
/// the rest goes. A container that uses the backend pins its module, hence none is left then.
///
/// # Invariants
///
/// `table` is registered with `vfio.ko`.
pub struct Registration<B: Backend> {
    table: &'static Table<B>,
}

impl<B: Backend> Registration<B> {
    /// Registers the backend with the `vfio.ko` that is loaded, be it ours or the kernel's.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the table is registered already, `ENOMEM`.
    pub fn new(table: &'static Table<B>) -> Result<Self> {
        // SAFETY: The table is static and `Table::new` filled it with callbacks of the type that
        // `Ops` and the C structure state.
        to_result(unsafe { callbacks::vfio_register_iommu_driver((&raw const table.0).cast()) })?;
        // INVARIANT: The registration above succeeded.
        Ok(Self { table })
    }
}

impl<B: Backend> Drop for Registration<B> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the table is registered, and this is the only place that
        // unregisters it.
        unsafe { callbacks::vfio_unregister_iommu_driver((&raw const self.table.0).cast()) };
    }
}
