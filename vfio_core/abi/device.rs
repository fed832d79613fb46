// SPDX-License-Identifier: GPL-2.0

//! `struct vfio_device` and the callbacks of its driver.

use core::{
    ptr::NonNull,
    sync::atomic::{
        AtomicPtr,
        AtomicU32,
        Ordering, //
    }, //
};

use kernel::{
    error::to_result,
    ffi::c_ulong,
    mm::virt::VmaNew,
    prelude::*,
    sync::{
        aref::{
            AlwaysRefCounted, //
        },
        Arc,
        ArcBorrow, //
    },
    types::Opaque,
    uaccess::UserPtr, //
};
use kernel_ext::{
    anon_file::{
        Inode,
        InodeRef,
        PseudoFs,
        PseudoFsMagic, //
    },
    bindings,
    mm::may_warn,
    module_ref::ModuleRef,
    uapi::InfoCaps,
    user_string::UserString, //
};

use super::{
    device_set::{
        self,
        SetGuard, //
    },
    globals::DEVICE_NUMBERS,
    migration::Migration, //
};
use crate::group::{
    registry::Registry,
    Group, //
};

/// The file system whose inodes hold the memory mappings of device files.
pub(crate) static DEVICE_FS: PseudoFs =
    PseudoFs::new::<Magic>(c"vfio", kernel::module::this_module::<crate::LocalModule>());

struct Magic;

impl PseudoFsMagic for Magic {
    /// "VFIO"
    const MAGIC: c_ulong = 0x5646494f;
}

/// A device that a VFIO driver offers to userspace.
///
/// The structure is embedded in the driver's own structure. The `struct device` in it counts its
/// references.
///
/// # Invariants
///
/// [`init()`] has set `dev`, `ops`, `inode` and `index`, which never change afterwards. `dev_set`
/// and `group` are set before the device is registered. `dev_set` does not change while the device
/// is registered. `group` is null or from `Arc::into_raw`. While the device is registered, only
/// [`Device::replace_group`] changes `group`, with `GROUPS` held and while the device is not open.
#[repr(transparent)]
pub(crate) struct Device(Opaque<bindings::vfio_device>);

// SAFETY: The locks named at the methods guard all fields that change. Drivers lock their own
// fields.
unsafe impl Send for Device {}
// SAFETY: As above.
unsafe impl Sync for Device {}

// SAFETY: `get_device` and `put_device` count the references that keep the structure allocated.
unsafe impl AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        // SAFETY: A shared reference implies that the count is not zero.
        unsafe { bindings::get_device(&raw mut (*self.as_ptr()).device) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        let device: *mut bindings::vfio_device = obj.cast().as_ptr();
        // SAFETY: By this function's contract.
        unsafe { bindings::put_device(&raw mut (*device).device) };
    }
}

impl Device {
    /// Wraps a pointer from a C caller.
    ///
    /// # Safety
    ///
    /// `device` was initialised by [`init()`] and stays allocated for `'a`.
    pub(super) unsafe fn from_raw<'a>(device: *mut bindings::vfio_device) -> &'a Self {
        // SAFETY: By this function's contract `device` is valid, and `Device` is a transparent
        // wrapper.
        unsafe { &*device.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::vfio_device {
        self.0.get()
    }

    pub(super) fn ops(&self) -> &bindings::vfio_device_ops {
        // SAFETY: By the type invariant `ops` is set, and a driver's table outlives its devices.
        unsafe { &*(*self.as_ptr()).ops }
    }

    /// Returns the device that the driver is bound to.
    pub(crate) fn parent(&self) -> &kernel::device::Device {
        // SAFETY: By the type invariant `dev` is set. The parent outlives the driver's binding, and
        // therefore every use of this device.
        unsafe { kernel::device::Device::from_raw((*self.as_ptr()).dev) }
    }

    /// Returns the number in the device's name `vfioN`.
    fn index(&self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_ptr()).index }
    }

    /// Returns the inode that holds the memory mappings of the device's files.
    pub(crate) fn inode(&self) -> InodeRef<'_> {
        // SAFETY: By the type invariant `inode` is set. `release_callback` drops it together with
        // the device.
        unsafe { Inode::borrow_raw(&(*self.as_ptr()).inode, &DEVICE_FS) }
    }

    /// Returns the migration interface of the device.
    pub(crate) fn migration(&self) -> Migration<'_> {
        Migration(self)
    }

    // --- Registration -------------------------------------------------------------------------

    /// Returns the field `group`. It is atomic because other threads may compare it while it
    /// changes.
    fn group_field(&self) -> &AtomicPtr<Group> {
        // SAFETY: The field is a pointer that only this module accesses, and always atomically.
        unsafe { AtomicPtr::from_ptr((&raw mut (*self.as_ptr()).group).cast()) }
    }

    fn exchange_group(&self, group: Option<Arc<Group>>) -> Option<Arc<Group>> {
        let group = group.map_or(core::ptr::null(), Arc::into_raw).cast_mut();
        let former = self.group_field().swap(group, Ordering::AcqRel);
        // SAFETY: By the type invariant the pointer is from `Arc::into_raw`. The thread that swaps
        // it out owns it.
        (!former.is_null()).then(|| unsafe { Arc::from_raw(former) })
    }

    /// Sets the device's group, until [`Device::take_group`].
    pub(crate) fn set_group(&self, group: Arc<Group>) {
        self.exchange_group(Some(group));
    }

    /// Replaces the device's group and returns the former one. The device cannot be opened while
    /// `_groups` is locked and the caller has claimed both groups.
    pub(crate) fn replace_group(
        &self,
        group: Arc<Group>,
        _groups: &mut Registry,
    ) -> Option<Arc<Group>> {
        self.exchange_group(Some(group))
    }

    /// Removes and returns the group that [`Device::set_group`] set. The device is no longer
    /// registered.
    pub(crate) fn take_group(&self) -> Option<Arc<Group>> {
        self.exchange_group(None)
    }

    /// Returns the group of a registered device. It does not change while the caller holds the lock
    /// of `_groups`.
    pub(crate) fn group(&self, _groups: &Registry) -> Option<Arc<Group>> {
        let group = NonNull::new(self.group_field().load(Ordering::Acquire))?;
        // SAFETY: By the type invariant. No thread swaps the pointer out of a registered device
        // while `GROUPS` is locked, and the caller borrows the content of `GROUPS`.
        Some(unsafe { ArcBorrow::from_raw(group.as_ptr()) }.into())
    }

    /// Returns the group of an open device.
    ///
    /// # Safety
    ///
    /// The device is open, or being opened, for all of `'a`.
    pub(super) unsafe fn group_of_open<'a>(&'a self) -> Option<&'a Group> {
        // SAFETY: By the type invariant the pointer does not change while the device is open.
        unsafe { self.group_field().load(Ordering::Acquire).as_ref() }
    }

    /// Returns whether the device is in `group`. The result can be outdated immediately, unless the
    /// group has a user.
    pub(crate) fn is_in(&self, group: &Group) -> bool {
        core::ptr::eq(self.group_field().load(Ordering::Acquire), group)
    }

    /// Adds the device to a set of its own if its driver has not added it to a set.
    pub(crate) fn ensure_set(&self) -> Result {
        // SAFETY: The device is not registered yet, so its driver is the only other user.
        if unsafe { (*self.as_ptr()).dev_set }.is_null() {
            device_set::assign(self, self.as_ptr() as usize)?;
        }
        Ok(())
    }

    /// Returns whether the device's IOMMU has the capability `cap`.
    pub(crate) fn iommu_capable(&self, cap: bindings::iommu_cap) -> bool {
        // SAFETY: The parent is valid.
        unsafe { bindings::device_iommu_capable((*self.as_ptr()).dev, cap) }
    }

    /// Adds the device to sysfs as `vfioN`.
    pub(crate) fn add(&self) -> Result {
        // SAFETY: `init` initialised the device. It has not been added yet, so its name may be set.
        unsafe {
            let dev = &raw mut (*self.as_ptr()).device;
            to_result(bindings::dev_set_name(
                dev,
                c"vfio%d".as_char_ptr(),
                self.index(),
            ))?;
            to_result(bindings::device_add(dev))
        }
    }

    /// Removes the device from sysfs.
    pub(crate) fn del(&self) {
        // SAFETY: This is only called on a device that was added.
        unsafe { bindings::device_del(&raw mut (*self.as_ptr()).device) }
    }

    // --- Opening and use ----------------------------------------------------------------------

    /// Returns whether `name` selects this device. The driver may modify the name.
    ///
    /// # Errors
    ///
    /// Returns the driver's error if `name` is meant for the driver but is incomplete.
    pub(crate) fn matches(&self, name: &mut UserString) -> Result<bool> {
        let Some(match_) = self.ops().match_ else {
            return Ok(self.parent().name().to_bytes_with_nul() == &**name);
        };
        // SAFETY: The name is a string, which a driver modifies only up to its terminator.
        let ret = unsafe { match_(self.as_ptr(), name.as_mut_ptr()) };
        to_result(ret.min(0))?;
        Ok(ret != 0)
    }

    /// Locks the device's set.
    pub(crate) fn lock_set(&self) -> SetGuard<'_> {
        SetGuard::lock(self)
    }

    /// Pins the module of the driver that is bound to the parent. Returns `None` if no driver is
    /// bound or the module is being unloaded.
    pub(crate) fn driver_module(&self) -> Option<ModuleRef> {
        // SAFETY: The parent of a registered device stays valid, because unbinding it waits for the
        // registration to end.
        let driver = unsafe { (*(*self.as_ptr()).dev).driver };
        if driver.is_null() {
            return None;
        }
        // SAFETY: The driver stays valid while the parent is bound to it.
        unsafe { ModuleRef::try_get((*driver).owner) }
    }

    /// Returns the number of open files. The lock of the device's set guards changes.
    pub(super) fn open_count(&self) -> &AtomicU32 {
        // SAFETY: Only the core changes the field, and it does so atomically.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.as_ptr()).open_count) }
    }

    pub(super) fn call_open(&self) -> Result {
        match self.ops().open_device {
            // SAFETY: The set's lock is held and this is the first open.
            Some(open) => to_result(unsafe { open(self.as_ptr()) }),
            None => Ok(()),
        }
    }

    pub(super) fn call_close(&self) {
        if let Some(close) = self.ops().close_device {
            // SAFETY: The set's lock is held and this is the last close.
            unsafe { close(self.as_ptr()) }
        }
        // SAFETY: The set's lock is held, and there is no user left.
        unsafe { (*self.as_ptr()).precopy_info_v2 = 0 };
    }

    /// Forwards an ioctl of an open device to its driver. `arg` is not interpreted.
    pub(crate) fn ioctl(&self, cmd: u32, arg: usize) -> Result<isize> {
        let ioctl = self.ops().ioctl.ok_or(EINVAL)?;
        // SAFETY: The device is open.
        let ret = unsafe { ioctl(self.as_ptr(), cmd, arg as c_ulong) };
        // The C core also keeps only the low 32 bits of the driver's result.
        let ret = ret as i32;
        to_result(ret.min(0))?;
        Ok(ret as isize)
    }

    /// Forwards `VFIO_DEVICE_FEATURE` to the driver. The payload has `size` bytes at `data`.
    pub(crate) fn feature(&self, flags: u32, data: UserPtr, size: usize) -> Result<isize> {
        let feature = self.ops().device_feature.ok_or(ENOTTY)?;
        // SAFETY: The device is open.
        let ret = unsafe { feature(self.as_ptr(), flags, data.as_mut_ptr(), size) };
        to_result(ret.min(0))?;
        Ok(ret as isize)
    }

    /// Requests information about a region from the driver of an open device. `info` returns the
    /// structure that userspace passed, which selects the region. Returns the driver's description
    /// and the capability chain that follows it.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL`, without calling `info`, if the driver has no regions; the error of `info`;
    /// or the driver's error.
    pub(crate) fn region_info(
        &self,
        info: impl FnOnce() -> Result<bindings::vfio_region_info>,
    ) -> Result<(bindings::vfio_region_info, InfoCaps)> {
        let get = self.ops().get_region_info_caps.ok_or(EINVAL)?;
        let mut info = info()?;
        let mut caps = InfoCaps::default();
        // SAFETY: The device is open and both structures are valid.
        let ret = unsafe { get(self.as_ptr(), &mut info, caps.as_raw()) };
        to_result(ret.min(0))?;
        Ok((info, caps))
    }

    /// Forwards a read of an open device to its driver.
    pub(crate) fn read(&self, buf: UserPtr, count: usize, pos: &mut i64) -> Result<usize> {
        let read = self.ops().read.ok_or(EINVAL)?;
        // SAFETY: The device is open.
        transferred(unsafe { read(self.as_ptr(), buf.as_mut_ptr().cast(), count, pos) })
    }

    /// Forwards a write to an open device to its driver.
    pub(crate) fn write(&self, buf: UserPtr, count: usize, pos: &mut i64) -> Result<usize> {
        let write = self.ops().write.ok_or(EINVAL)?;
        // SAFETY: The device is open.
        transferred(unsafe { write(self.as_ptr(), buf.as_const_ptr().cast(), count, pos) })
    }

    /// Calls the driver of an open device to set up a new memory mapping.
    pub(crate) fn mmap(&self, vma: &VmaNew) -> Result {
        let mmap = self.ops().mmap.ok_or(EINVAL)?;
        // SAFETY: The device is open, and the mapping is being set up.
        to_result(unsafe { mmap(self.as_ptr(), vma.as_ptr()) })
    }

    /// Resumes the parent, and keeps it active until the result is dropped. Returns `None` if the
    /// parent's driver has no power management callbacks.
    ///
    /// # Errors
    ///
    /// Returns `EIO` if the parent cannot be resumed.
    pub(crate) fn resume(&self) -> Result<Option<Awake<'_>>> {
        // SAFETY: The parent of an open device is bound, and its driver's table is static.
        let managed = unsafe {
            let driver = (*(*self.as_ptr()).dev).driver;
            !driver.is_null() && !(*driver).pm.is_null()
        };
        if !managed {
            return Ok(None);
        }
        // SAFETY: The parent is valid.
        match to_result(unsafe { bindings::kernel_ext_pm_runtime_get((*self.as_ptr()).dev) }) {
            Ok(()) => Ok(Some(Awake(self))),
            Err(e) => {
                if may_warn() {
                    dev_info!(
                        self.parent(),
                        "vfio: runtime resume failed {}\n",
                        e.to_errno()
                    );
                }
                Err(EIO)
            }
        }
    }

    /// Calls `show` with the sysfs path of the parent, which starts with `/devices`.
    pub(crate) fn with_sysfs_path(&self, show: impl FnOnce(&CStr)) {
        // SAFETY: The parent is valid.
        let path = unsafe {
            bindings::kobject_get_path(
                &raw const (*(*self.as_ptr()).dev).kobj,
                bindings::GFP_KERNEL,
            )
        };
        if !path.is_null() {
            // SAFETY: The path is a newly allocated C string, which this function owns and frees.
            unsafe {
                show(CStr::from_char_ptr(path));
                bindings::kfree(path.cast());
            }
        }
    }
}

fn transferred(ret: isize) -> Result<usize> {
    usize::try_from(ret).map_err(|_| Error::from_errno(ret as i32))
}

/// Keeps the parent of a device from being runtime-suspended.
///
/// # Invariants
///
/// Holds one runtime power management reference to the parent.
pub(crate) struct Awake<'a>(&'a Device);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::kernel_ext_pm_runtime_put((*self.0.as_ptr()).dev) }
    }
}

/// Initialises a device in a driver's zeroed memory.
///
/// # Safety
///
/// `device` points to zeroed memory that [`release_callback`] may free by `kvfree()`. `dev` and
/// `ops` outlive the device.
pub(super) unsafe fn init(
    device: *mut bindings::vfio_device,
    dev: *mut bindings::device,
    ops: *const bindings::vfio_device_ops,
) -> Result {
    let index = DEVICE_NUMBERS.lock().take()?;
    let result = DEVICE_FS.inode().and_then(|inode| {
        // SAFETY: By this function's contract the memory is valid, and nothing else refers to the
        // device yet.
        unsafe {
            (*device).index = index;
            (*device).dev = dev;
            (*device).ops = ops;
            (*device).inode = inode.into_raw();
        }
        // SAFETY: As above. The driver's callback gets the device in the state that it expects.
        let result = unsafe { (*ops).init.map_or(Ok(()), |init| to_result(init(device))) };
        // SAFETY: Nothing uses the inode, since the device was not handed out.
        result.inspect_err(|_| unsafe { drop(Inode::from_raw((*device).inode, &DEVICE_FS)) })
    });
    if let Err(e) = result {
        // SAFETY: Nothing uses the device after this. The driver's `init` may have added it to a
        // set.
        unsafe { device_set::release(device) };
        DEVICE_NUMBERS.lock().give_back(index);
        return Err(e);
    }
    // SAFETY: As above.
    unsafe {
        bindings::device_initialize(&raw mut (*device).device);
        (*device).device.release = Some(release_callback);
        (*device).device.class = crate::device::CLASS.as_ptr();
        (*device).device.parent = dev;
    }
    Ok(())
}

/// # Safety
///
/// Called by the driver core with the `struct device` of a device that [`init()`] initialised.
unsafe extern "C" fn release_callback(dev: *mut bindings::device) {
    let offset = core::mem::offset_of!(bindings::vfio_device, device);
    let device: *mut bindings::vfio_device = dev.wrapping_byte_sub(offset).cast();
    // SAFETY: By this function's contract the device is valid, and nothing refers to it any more.
    unsafe {
        device_set::release(device);
        DEVICE_NUMBERS.lock().give_back((*device).index);
        if let Some(release) = (*(*device).ops).release {
            release(device);
        }
        drop(Inode::from_raw((*device).inode, &DEVICE_FS));
        bindings::kvfree(device.cast());
    }
}
