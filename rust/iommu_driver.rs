// SPDX-License-Identifier: GPL-2.0

//! IOMMU backends of VFIO containers.
//!
//! A container accesses its IOMMU only through `struct vfio_iommu_driver_ops`, which a backend
//! passes to `vfio_register_iommu_driver()`. The structure is private to `drivers/vfio`, but the
//! functions that register and unregister it are exported. So its layout is an ABI between
//! `vfio.ko` and the backends, and [`Ops`] has that layout. A Rust backend implements [`Backend`],
//! and [`Table`] provides the callbacks.
//!
//! C header: `drivers/vfio/vfio.h`

mod args;
mod callbacks;
mod device_list;

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
    compat::{
        this_module,
        ModuleMetadata, //
    },
    iommu::{
        Attachment,
        Group,
        Prot, //
    }, //
};

pub use args::{
    Filled,
    GroupType,
    NewGroup,
    PageSlots,
    Transfer, //
};

pub use device_list::{
    DeviceList,
    DeviceListGuard,
    ListedDevice, //
};

/// The operations of a backend: `struct vfio_iommu_driver_ops`.
///
/// A callback is `None` if the backend doesn't implement it. `iommu_data` is the pointer that
/// `open` returned. The core passes it to `release` once, after all other callbacks have returned.
#[repr(C)]
pub struct Ops {
    /// The name of the backend, null-terminated.
    pub name: *const c_char,
    /// The module to pin while a container uses the backend.
    pub owner: *mut bindings::module,
    /// Creates the backend's state for a container of the given extension. Returns an `ERR_PTR` on
    /// failure.
    pub open: Option<unsafe extern "C" fn(c_ulong) -> *mut c_void>,
    /// Destroys the state that `open` created.
    pub release: Option<unsafe extern "C" fn(*mut c_void)>,
    /// Handles an ioctl of the container. The data is null for `VFIO_CHECK_EXTENSION` of a
    /// container without a backend.
    pub ioctl: Option<unsafe extern "C" fn(*mut c_void, c_uint, c_ulong) -> c_long>,
    /// Attaches a group to the container's address space. The last argument is a [`GroupType`].
    pub attach_group:
        Option<unsafe extern "C" fn(*mut c_void, *mut bindings::iommu_group, c_uint) -> c_int>,
    /// Detaches a group.
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
    /// Unpins pages that `pin_pages` pinned.
    pub unpin_pages: Option<unsafe extern "C" fn(*mut c_void, bindings::dma_addr_t, c_int)>,
    /// Notifies the backend that a device was opened.
    pub register_device: Option<unsafe extern "C" fn(*mut c_void, *mut bindings::vfio_device)>,
    /// Notifies the backend that a device is being closed.
    pub unregister_device: Option<unsafe extern "C" fn(*mut c_void, *mut bindings::vfio_device)>,
    /// Reads or writes user memory by iova.
    pub dma_rw: Option<
        unsafe extern "C" fn(*mut c_void, bindings::dma_addr_t, *mut c_void, usize, bool) -> c_int,
    >,
    /// Returns the domain of a group, or an `ERR_PTR`.
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

// SAFETY: As for `Sync`; nothing in the table is bound to a thread.
unsafe impl Send for Ops {}

/// An IOMMU backend. Each instance serves one container.
///
/// The core calls `attach_group` of a new instance before any other method, and drops its reference
/// when the last group was detached. All methods may sleep.
#[vtable]
pub trait Backend: Send + Sync + Sized + 'static {
    /// The module that implements the trait: `crate::LocalModule`.
    type OwnerModule: ModuleMetadata;

    /// The backend's name, for log messages of the core.
    const NAME: &'static CStr;

    /// Creates the state of a container that chose extension `kind` (a `VFIO_*_IOMMU` number).
    ///
    /// # Errors
    ///
    /// `EINVAL` if the backend doesn't support this extension; `ENOMEM`.
    fn open(kind: c_ulong) -> Result<Arc<Self>>;

    /// Releases the instance that `open` created. No other method is called for it any more.
    fn release(this: Arc<Self>) {
        drop(this);
    }

    /// Handles `VFIO_CHECK_EXTENSION`. `this` is `None` while the container has no backend.
    fn check_extension(this: Option<&Self>, extension: c_ulong) -> c_long;

    /// Handles every other ioctl of the container. `arg` is its argument.
    ///
    /// # Errors
    ///
    /// `ENOTTY` for an unknown command; otherwise the errors of the command.
    fn ioctl(this: ArcBorrow<'_, Self>, cmd: u32, arg: UserPtr) -> Result<c_long>;

    /// Attaches `group` to the container's address space.
    ///
    /// # Errors
    ///
    /// Those of the backend. An error leaves the group where it was.
    fn attach_group(this: ArcBorrow<'_, Self>, group: NewGroup<'_>) -> Result;

    /// Detaches `group` from the address space.
    fn detach_group(this: ArcBorrow<'_, Self>, group: &Group);

    /// Pins the pages behind `iova` for accesses by `prot`, one for each slot of `pages`. On an
    /// error no page is pinned.
    ///
    /// # Errors
    ///
    /// Those of `vfio_pin_pages()`.
    fn pin_pages<'a>(
        _this: ArcBorrow<'_, Self>,
        _group: &Group,
        _iova: u64,
        _prot: Prot,
        _pages: PageSlots<'a>,
    ) -> Result<Filled<'a>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reverts one [`pin_pages`](Backend::pin_pages) of `npage` pages starting at `iova`.
    fn unpin_pages(_this: ArcBorrow<'_, Self>, _iova: u64, _npage: c_int) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the list of open devices whose drivers may pin pages. This is called once, after
    /// [`open`](Backend::open).
    fn device_list(_this: &Self) -> &Arc<DeviceList> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Copies between a kernel buffer and the user memory that is mapped at `iova`.
    ///
    /// # Errors
    ///
    /// Those of `vfio_dma_rw()`.
    fn dma_rw(_this: ArcBorrow<'_, Self>, _iova: u64, _data: Transfer<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns what `answer` returns for the attachment of `group` to its domain.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the group isn't attached to this address space, or has no IOMMU.
    fn group_iommu_domain<R>(
        _this: ArcBorrow<'_, Self>,
        _group: &Group,
        _answer: impl FnOnce(&Attachment) -> R,
    ) -> Result<R> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The callbacks of backend `B`. Keep it as a `static`: the core identifies a backend by the
/// address of the table.
pub struct Table<B>(Ops, PhantomData<fn() -> B>);

impl<B> Table<B> {
    /// Returns the table for the core.
    pub fn ops(&'static self) -> &'static Ops {
        &self.0
    }
}

/// The registration of a backend with the core. Dropping it unregisters the backend.
///
/// Make it the first field of the module's data, unless the other fields need no container to be
/// gone: then no container finds the backend while the other fields are dropped. A container that
/// uses the backend pins its module, so there is none at that time.
///
/// # Invariants
///
/// `table` is registered with `vfio.ko`.
pub struct Registration<B: Backend> {
    table: &'static Table<B>,
}

impl<B: Backend> Registration<B> {
    /// Registers the backend with the loaded `vfio.ko`, either this project's or the kernel's.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the table is registered already; `ENOMEM`.
    pub fn new(table: &'static Table<B>) -> Result<Self> {
        // SAFETY: The table is static, and `Table::new` filled it with callbacks of the types that
        // `Ops` and the C structure specify.
        to_result(unsafe { callbacks::vfio_register_iommu_driver((&raw const table.0).cast()) })?;
        // INVARIANT: The registration above succeeded.
        Ok(Self { table })
    }
}

impl<B: Backend> Drop for Registration<B> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the table is registered, and it isn't unregistered anywhere
        // else.
        unsafe { callbacks::vfio_unregister_iommu_driver((&raw const self.table.0).cast()) };
    }
}
