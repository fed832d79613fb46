// SPDX-License-Identifier: GPL-2.0

//! Backends as the core uses them: `struct vfio_iommu_driver_ops` of a C or Rust module.

use core::ptr::NonNull;

use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::{
        c_uint,
        c_ulong,
        c_void, //
    },
    prelude::*, //
};
use kernel_ext::{
    bindings,
    iommu::Group,
    iommu_driver::{
        GroupKind,
        Ops, //
    },
    module_ref::ModuleRef, //
};

use crate::abi::device::Device;

/// `VFIO_CHECK_EXTENSION`
pub(crate) const CHECK_EXTENSION: c_uint = kernel::ioctl::_IO(b';' as u32, 101);

/// An entry in the list of backends.
///
/// # Invariants
///
/// As long as the entry is in the list the table is valid: its module takes it out before it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registered(NonNull<Ops>);

// SAFETY: The table is never written.
unsafe impl Send for Registered {}
// SAFETY: As above.
unsafe impl Sync for Registered {}

impl Registered {
    /// Wraps what a backend registers.
    ///
    /// # Safety
    ///
    /// `ops` stays valid until the backend has taken the entry out of the list.
    pub(super) unsafe fn new(ops: NonNull<Ops>) -> Self {
        Self(ops)
    }

    /// Whether the table has both device callbacks or neither.
    pub(crate) fn is_consistent(&self) -> bool {
        // SAFETY: Valid before it enters the list.
        let ops = unsafe { self.0.as_ref() };
        ops.register_device.is_some() == ops.unregister_device.is_some()
    }

    /// Pins the backend's module. `self` is borrowed from the list, whose lock is held.
    pub(crate) fn pin(&self) -> Option<Driver> {
        // SAFETY: Valid while in the list, by the type invariant.
        let owner = unsafe { self.0.as_ref() }.owner;
        // SAFETY: The module cannot go while its table is in the list, whose lock is held.
        let module = unsafe { ModuleRef::try_get(owner) }?;
        // INVARIANT: The module is pinned, so the table stays.
        Some(Driver {
            ops: self.0,
            _module: module,
        })
    }
}

/// A backend whose module is pinned.
///
/// # Invariants
///
/// `ops` is valid while `_module` is held.
pub(crate) struct Driver {
    ops: NonNull<Ops>,
    _module: ModuleRef,
}

// SAFETY: The callbacks may be called from any task, and the table is never written.
unsafe impl Send for Driver {}
// SAFETY: As above.
unsafe impl Sync for Driver {}

impl Driver {
    fn ops(&self) -> &Ops {
        // SAFETY: By the type invariant.
        unsafe { self.ops.as_ref() }
    }

    /// Whether this is the backend `other`.
    #[cfg(CONFIG_VFIO_NOIOMMU)]
    pub(crate) fn is(&self, other: *const Ops) -> bool {
        core::ptr::eq(self.ops.as_ptr(), other)
    }

    /// What the backend answers to `VFIO_CHECK_EXTENSION` outside of any container.
    pub(crate) fn check_extension(&self, extension: usize) -> isize {
        let Some(ioctl) = self.ops().ioctl else {
            return 0;
        };
        // SAFETY: A null `iommu_data` is the contract for this one command.
        unsafe { ioctl(core::ptr::null_mut(), CHECK_EXTENSION, extension as c_ulong) as isize }
    }

    /// Makes an address space of the kind `extension`.
    pub(crate) fn open(self, extension: usize) -> Result<Iommu> {
        let open = self.ops().open.ok_or(ENODEV)?;
        // SAFETY: The backend takes any number.
        let data = from_err_ptr(unsafe { open(extension as c_ulong) })?;
        // INVARIANT: This is what `open` gave.
        Ok(Iommu { driver: self, data })
    }
}

/// An address space of a backend; dropping it releases it.
///
/// # Invariants
///
/// `data` is what the driver's `open` gave and `release` has not been called on it.
pub(crate) struct Iommu {
    driver: Driver,
    data: *mut c_void,
}

// SAFETY: Backends do their own locking: the C core, too, calls them from any task at once.
unsafe impl Send for Iommu {}
// SAFETY: As above.
unsafe impl Sync for Iommu {}

impl Iommu {
    /// Passes an ioctl of the container on; `arg` is not interpreted.
    pub(crate) fn ioctl(&self, cmd: u32, arg: usize) -> Result<isize> {
        let ioctl = self.driver.ops().ioctl.ok_or(ENOTTY)?;
        // SAFETY: By the type invariant.
        let ret = unsafe { ioctl(self.data, cmd, arg as c_ulong) };
        if ret < 0 {
            return Err(Error::from_errno(ret as i32));
        }
        Ok(ret)
    }

    /// Puts the devices of `group` behind this address space.
    pub(crate) fn attach(&self, group: &Group, kind: GroupKind) -> Result {
        let attach = self.driver.ops().attach_group.ok_or(ENODEV)?;
        // SAFETY: By the type invariant; `group` is valid.
        to_result(unsafe { attach(self.data, group.as_ptr(), kind as c_uint) })
    }

    /// Takes the devices of `group`, which was attached, out again.
    pub(crate) fn detach(&self, group: &Group) {
        if let Some(detach) = self.driver.ops().detach_group {
            // SAFETY: By the type invariant; `group` is valid.
            unsafe { detach(self.data, group.as_ptr()) }
        }
    }

    /// Tells the backend of a device that was opened.
    pub(crate) fn register_device(&self, device: &Device) {
        if let Some(register) = self.driver.ops().register_device {
            // SAFETY: The session that registers the device unregisters it before it closes it.
            unsafe { register(self.data, device.as_ptr()) }
        }
    }

    /// Tells the backend that a registered device is about to be closed.
    pub(crate) fn unregister_device(&self, device: &Device) {
        if let Some(unregister) = self.driver.ops().unregister_device {
            // SAFETY: By the type invariant; the device was registered.
            unsafe { unregister(self.data, device.as_ptr()) }
        }
    }

    /// `vfio_pin_pages()` on this address space.
    ///
    /// # Safety
    ///
    /// `pages` has room for `npage` pointers.
    pub(super) unsafe fn pin_pages(
        &self,
        group: &Group,
        iova: u64,
        npage: i32,
        prot: i32,
        pages: *mut *mut bindings::page,
    ) -> i32 {
        let Some(pin) = self.driver.ops().pin_pages else {
            return ENOTTY.to_errno();
        };
        // SAFETY: By the type invariant and this function's contract.
        unsafe { pin(self.data, group.as_ptr(), iova, npage, prot, pages) }
    }

    /// `vfio_unpin_pages()` on this address space.
    pub(super) fn unpin_pages(&self, iova: u64, npage: i32) {
        if let Some(unpin) = self.driver.ops().unpin_pages {
            // SAFETY: By the type invariant.
            unsafe { unpin(self.data, iova, npage) }
        }
    }

    /// `vfio_dma_rw()` on this address space.
    ///
    /// # Safety
    ///
    /// `data` is a kernel buffer of `len` bytes, to be read (`write`) or written.
    pub(super) unsafe fn dma_rw(
        &self,
        iova: u64,
        data: *mut c_void,
        len: usize,
        write: bool,
    ) -> i32 {
        let Some(dma_rw) = self.driver.ops().dma_rw else {
            return ENOTTY.to_errno();
        };
        // SAFETY: By the type invariant and this function's contract.
        unsafe { dma_rw(self.data, iova, data, len, write) }
    }
}

impl Drop for Iommu {
    fn drop(&mut self) {
        if let Some(release) = self.driver.ops().release {
            // SAFETY: By the type invariant; the module is put after this.
            unsafe { release(self.data) }
        }
    }
}
