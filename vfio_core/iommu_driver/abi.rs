// SPDX-License-Identifier: GPL-2.0

//! `struct vfio_iommu_driver_ops` of a C or Rust module.

use core::ptr::NonNull;

use iommu_group::DmaOwner;
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
    prelude::*,
    sync::{
        aref::ARef,
        global_lock,
        Arc, //
    }, //
};
use kernel_ext::{
    array_vec::SmallVec,
    bindings,
    iommu::Group,
    iommu_driver::{
        GroupType,
        Ops, //
    },
    module::ModuleRef,
    uapi::ioctl::VFIO_CHECK_EXTENSION, //
};

use crate::device::Device;

global_lock! {
    // SAFETY: `init_lock` initialises it before the module can be used.
    pub(super) unsafe(uninit) static DRIVERS: Mutex<KVec<IommuDriver>> = KVec::new();
}

/// Initialises the lock of the list.
///
/// # Safety
///
/// Module init calls this once, before any other function of this module.
pub(crate) unsafe fn init_lock() {
    // SAFETY: By this function's contract.
    unsafe { DRIVERS.init() };
}

/// The table of an IOMMU driver that is in the list, or about to be.
///
/// # Invariants
///
/// The table is valid until the driver's module has removed it from the list.
#[derive(PartialEq, Eq)]
pub(crate) struct IommuDriver(NonNull<Ops>);

// SAFETY: The table is never modified.
unsafe impl Send for IommuDriver {}
// SAFETY: As above.
unsafe impl Sync for IommuDriver {}

impl IommuDriver {
    /// Wraps the table that an IOMMU driver registers.
    ///
    /// # Safety
    ///
    /// `ops` stays valid until the driver has removed it from the list. The value is dropped by
    /// then, unless it is in the list.
    pub(crate) unsafe fn new(ops: NonNull<Ops>) -> Self {
        // INVARIANT: By this function's contract.
        Self(ops)
    }

    /// Returns whether this is the table `ops`.
    pub(super) fn is(&self, ops: *const Ops) -> bool {
        core::ptr::eq(self.0.as_ptr(), ops)
    }

    /// Returns whether the table has both device callbacks or neither.
    pub(super) fn is_consistent(&self) -> bool {
        // SAFETY: By the type invariant.
        let ops = unsafe { self.0.as_ref() };
        ops.register_device.is_some() == ops.unregister_device.is_some()
    }

    /// Pins the driver's module, if it is not being unloaded.
    fn pin(&self) -> Option<IommuDriverRef> {
        // SAFETY: By the type invariant.
        let owner = unsafe { self.0.as_ref() }.owner;
        // SAFETY: The module removes its table from the list before it is freed.
        let module = unsafe { ModuleRef::try_get(owner) }?;
        // INVARIANT: The module is pinned, so the table stays valid.
        Some(IommuDriverRef {
            ops: self.0,
            _module: module,
        })
    }
}

/// Returns all IOMMU drivers, with their modules pinned, in the order in which containers try them.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn all() -> Result<SmallVec<IommuDriverRef, 4>> {
    let drivers = DRIVERS.lock();
    let mut pinned = SmallVec::new();
    for driver in drivers.iter().rev().filter_map(IommuDriver::pin) {
        pinned.push(driver, GFP_KERNEL)?;
    }
    Ok(pinned)
}

/// An IOMMU driver whose module is pinned.
///
/// # Invariants
///
/// `ops` is valid while `_module` is held.
pub(crate) struct IommuDriverRef {
    ops: NonNull<Ops>,
    _module: ModuleRef,
}

// SAFETY: The callbacks may be called from any task, and the table is never modified.
unsafe impl Send for IommuDriverRef {}
// SAFETY: As above.
unsafe impl Sync for IommuDriverRef {}

impl IommuDriverRef {
    fn ops(&self) -> &Ops {
        // SAFETY: By the type invariant.
        unsafe { self.ops.as_ref() }
    }

    /// Returns whether this is the driver of the table `other`.
    #[cfg(CONFIG_VFIO_NOIOMMU)]
    pub(crate) fn is(&self, other: *const Ops) -> bool {
        core::ptr::eq(self.ops.as_ptr(), other)
    }

    /// Returns the driver's result for `VFIO_CHECK_EXTENSION` without a container.
    pub(crate) fn check_extension(&self, extension: usize) -> isize {
        let Some(ioctl) = self.ops().ioctl else {
            return 0;
        };
        // SAFETY: The contract of this command, and of no other, allows `iommu_data` to be null.
        unsafe {
            ioctl(
                core::ptr::null_mut(),
                VFIO_CHECK_EXTENSION,
                extension as c_ulong,
            ) as isize
        }
    }

    /// Creates an address space of the type `extension`.
    pub(crate) fn open(self, extension: usize) -> Result<Iommu> {
        let open = self.ops().open.ok_or(ENODEV)?;
        // SAFETY: IOMMU drivers accept any number.
        let data = from_err_ptr(unsafe { open(extension as c_ulong) })?;
        // INVARIANT: `open` returned `data`.
        Ok(Iommu {
            driver: self,
            data,
            extension,
        })
    }
}

/// The address space that a backend has allocated for a container: `iommu_data` in C VFIO. Dropping
/// it calls `release` of the backend.
///
/// # Invariants
///
/// The driver's `open` returned `data`, and `release` has not been called on it.
pub(crate) struct Iommu {
    driver: IommuDriverRef,
    data: *mut c_void,
    extension: usize,
}

// SAFETY: IOMMU drivers do their own locking, because the C core also calls them from several tasks
// at once.
unsafe impl Send for Iommu {}
// SAFETY: As above.
unsafe impl Sync for Iommu {}

impl Iommu {
    /// Returns the type of the address space, as userspace chose it.
    pub(crate) fn extension(&self) -> usize {
        self.extension
    }

    /// Forwards an ioctl of the container to the driver. `arg` is not interpreted.
    pub(crate) fn ioctl(&self, cmd: u32, arg: usize) -> Result<isize> {
        let ioctl = self.driver.ops().ioctl.ok_or(ENOTTY)?;
        // SAFETY: By the type invariant.
        let ret = unsafe { ioctl(self.data, cmd, arg as c_ulong) };
        if ret < 0 {
            return Err(Error::from_errno(ret as i32));
        }
        Ok(ret)
    }

    /// Notifies the driver that a device is being opened.
    ///
    /// # Safety
    ///
    /// The device is registered in no address space. The caller calls
    /// [`Iommu::unregister_device`] before the device is freed.
    pub(crate) unsafe fn register_device(&self, device: &Device) {
        if let Some(register) = self.driver.ops().register_device {
            // SAFETY: By the type invariant and this function's contract.
            unsafe { register(self.data, device.as_ptr()) }
        }
    }

    /// Notifies the driver that a registered device was closed, or could not be opened.
    ///
    /// # Safety
    ///
    /// The device is registered in this address space.
    pub(crate) unsafe fn unregister_device(&self, device: &Device) {
        if let Some(unregister) = self.driver.ops().unregister_device {
            // SAFETY: By the type invariant and this function's contract.
            unsafe { unregister(self.data, device.as_ptr()) }
        }
    }

    /// `vfio_pin_pages()` on this address space.
    ///
    /// # Safety
    ///
    /// `pages` has room for `npage` pointers.
    pub(crate) unsafe fn pin_pages(
        &self,
        group: &Group,
        iova: u64,
        npage: i32,
        prot: i32,
        pages: *mut *mut bindings::page,
    ) -> Result<i32> {
        let pin = self.driver.ops().pin_pages.ok_or(ENOTTY)?;
        // SAFETY: By the type invariant and this function's contract.
        let ret = unsafe { pin(self.data, group.as_ptr(), iova, npage, prot, pages) };
        to_result(ret.min(0)).map(|()| ret)
    }

    /// `vfio_unpin_pages()` on this address space.
    ///
    /// # Safety
    ///
    /// A driver pinned the pages, and does not use them any more.
    pub(crate) unsafe fn unpin_pages(&self, iova: u64, npage: i32) {
        if let Some(unpin) = self.driver.ops().unpin_pages {
            // SAFETY: By the type invariant and this function's contract.
            unsafe { unpin(self.data, iova, npage) }
        }
    }

    /// `vfio_dma_rw()` on this address space.
    ///
    /// # Safety
    ///
    /// `data` is a kernel buffer of `len` bytes. It is read if `write` is true, and written
    /// otherwise.
    pub(crate) unsafe fn dma_rw(
        &self,
        iova: u64,
        data: *mut c_void,
        len: usize,
        write: bool,
    ) -> Result<i32> {
        let dma_rw = self.driver.ops().dma_rw.ok_or(ENOTTY)?;
        // SAFETY: By the type invariant and this function's contract.
        let ret = unsafe { dma_rw(self.data, iova, data, len, write) };
        to_result(ret.min(0)).map(|()| ret)
    }
}

impl Drop for Iommu {
    fn drop(&mut self) {
        if let Some(release) = self.driver.ops().release {
            // SAFETY: By the type invariant. The module is put only after this call.
            unsafe { release(self.data) }
        }
    }
}

/// A group in a container. Dropping it detaches the group from its address space, and then returns the
/// ownership of the group's DMA to the kernel.
///
/// # Invariants
///
/// A group with an IOMMU has an owner. The group is attached to `iommu`, if there is one.
pub(crate) struct Member {
    group: ARef<Group>,
    kind: GroupType,
    iommu: Option<Arc<Iommu>>,
    _owner: Option<DmaOwner>,
}

impl Member {
    /// Claims the group's DMA if it has an IOMMU.
    ///
    /// # Errors
    ///
    /// Those of [`DmaOwner::claim`]. The log has the reason for `EPERM` and `EBUSY`.
    pub(crate) fn claim(group: ARef<Group>, kind: GroupType) -> Result<Self> {
        let owner = match kind {
            GroupType::Iommu => {
                let claimed = DmaOwner::claim(group.clone());
                Some(claimed.inspect_err(|&e| iommu_group::warn_claim_failed(&group, e))?)
            }
            _ => None,
        };
        // INVARIANT: The group was just claimed, and is not attached.
        Ok(Self {
            group,
            kind,
            iommu: None,
            _owner: owner,
        })
    }

    /// Returns the group.
    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// Returns its type.
    pub(crate) fn kind(&self) -> GroupType {
        self.kind
    }

    /// Attaches the devices of the group to `iommu`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if they are attached; those of the driver.
    pub(crate) fn attach(&mut self, iommu: &Arc<Iommu>) -> Result {
        if self.iommu.is_some() {
            return Err(EBUSY);
        }
        let attach = iommu.driver.ops().attach_group.ok_or(ENODEV)?;
        // SAFETY: By the invariant of `iommu`. The group is valid. If it has an IOMMU, it is claimed
        // until it was detached.
        to_result(unsafe { attach(iommu.data, self.group.as_ptr(), self.kind as c_uint) })?;
        // INVARIANT: The group was just attached.
        self.iommu = Some(iommu.clone());
        Ok(())
    }

    /// Detaches the devices of the group, if they are attached.
    pub(crate) fn detach(&mut self) {
        let Some(iommu) = self.iommu.take() else {
            return;
        };
        if let Some(detach) = iommu.driver.ops().detach_group {
            // SAFETY: By the invariants of both types.
            unsafe { detach(iommu.data, self.group.as_ptr()) }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.detach();
    }
}
