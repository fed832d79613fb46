// SPDX-License-Identifier: GPL-2.0

//! `struct vfio_device`: its allocation, its fields, and its `struct device`.

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
    prelude::*,
    sync::{
        aref::AlwaysRefCounted,
        global_lock,
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};
use kernel_ext::{
    anon_file::{
        Inode,
        InodeRef,
        PseudoFs,
        PseudoFsMagic, //
    },
    bindings,
    chardev::DevNumber,
    ida::Ida, //
};

use super::set;
use crate::group::{
    Group,
    GroupsGuard, //
};

global_lock! {
    // SAFETY: `init_locks` initialises it before the module can be used.
    unsafe(uninit) static DEVICE_IDA: Mutex<Ida> = Ida::new();
}

global_lock! {
    // SAFETY: `init_locks` initialises it before the module can be used.
    pub(super) unsafe(uninit) static NUMBERS: Mutex<super::cdev::Numbers> =
        super::cdev::Numbers::new();
}

global_lock! {
    // SAFETY: `init_locks` initialises it before the module can be used.
    /// Held while the pointer from a device to its group is changed, or is read to count a
    /// reference to the group.
    unsafe(uninit) static GROUP_POINTERS: SpinLock<()> = ();
}

/// Initialises the locks of the numbers of `vfioN`, of device files, and of devices' groups.
///
/// # Safety
///
/// Module init calls this once, before any other function of this module.
pub(crate) unsafe fn init_locks() {
    // SAFETY: By this function's contract.
    unsafe { DEVICE_IDA.init() };
    // SAFETY: As above.
    unsafe { NUMBERS.init() };
    // SAFETY: As above.
    unsafe { GROUP_POINTERS.init() };
}

/// The file system whose inodes hold the memory mappings of device files.
pub(crate) static DEVICE_FS: PseudoFs = PseudoFs::new::<Magic>(c"vfio");

struct Magic;

impl PseudoFsMagic for Magic {
    type OwnerModule = crate::LocalModule;

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
/// is registered. `group` (see [`Device::group_field`]) is null or from `Arc::into_raw`. Only
/// [`Device::exchange_group`] changes it, with `GROUPS` and [`GROUP_POINTERS`](static@GROUP_POINTERS) held and
/// while the device is not open.
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
    pub(crate) unsafe fn from_raw<'a>(device: *mut bindings::vfio_device) -> &'a Self {
        // SAFETY: By this function's contract `device` is valid, and `Device` is a transparent
        // wrapper.
        unsafe { &*device.cast() }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::vfio_device {
        self.0.get()
    }

    pub(crate) fn ops(&self) -> &bindings::vfio_device_ops {
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
    pub(crate) fn index(&self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_ptr()).index }
    }

    /// Returns the inode that holds the memory mappings of the device's files.
    pub(crate) fn inode(&self) -> InodeRef<'_> {
        // SAFETY: By the type invariant `inode` is set. `release_callback` drops it together with
        // the device.
        unsafe { Inode::borrow_raw(&(*self.as_ptr()).inode, &DEVICE_FS) }
    }

    // --- Registration -------------------------------------------------------------------------

    /// Returns the field `group`. It is atomic because other threads may compare it while it
    /// changes.
    fn group_field(&self) -> &AtomicPtr<Group> {
        #[cfg(CONFIG_VFIO_GROUP)]
        // SAFETY: The structure is valid.
        let field = unsafe { &raw mut (*self.as_ptr()).group };
        #[cfg(not(CONFIG_VFIO_GROUP))]
        // SAFETY: As above. Drivers of platform devices use this field; the device of a
        // `struct vfio_device` has no other use for it.
        let field = unsafe { &raw mut (*self.as_ptr()).device.platform_data };
        // SAFETY: The field is a pointer that only this module accesses, and always atomically.
        unsafe { AtomicPtr::from_ptr(field.cast()) }
    }

    /// Sets the device's group, or removes it, and returns the former one.
    ///
    /// # Safety
    ///
    /// The device is not open.
    pub(super) unsafe fn exchange_group(
        &self,
        group: Option<Arc<Group>>,
        _groups: &mut GroupsGuard,
    ) -> Option<Arc<Group>> {
        let group = group.map_or(core::ptr::null(), Arc::into_raw).cast_mut();
        let pointers = GROUP_POINTERS.lock();
        let former = self.group_field().swap(group, Ordering::AcqRel);
        drop(pointers);
        // SAFETY: By the type invariant the pointer is from `Arc::into_raw`. The thread that swaps
        // it out owns it.
        (!former.is_null()).then(|| unsafe { Arc::from_raw(former) })
    }

    /// Returns the group of a registered device. It can change at any time, unless the caller keeps
    /// `GROUPS` locked, or the group has a user.
    pub(crate) fn group(&self) -> Option<Arc<Group>> {
        let _pointers = GROUP_POINTERS.lock();
        let group = NonNull::new(self.group_field().load(Ordering::Acquire))?;
        // SAFETY: By the type invariant the pointer is from `Arc::into_raw`, and no other thread
        // changes it while `GROUP_POINTERS` is locked.
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

    /// Returns whether the device's IOMMU has the capability `cap`.
    pub(crate) fn iommu_capable(&self, cap: bindings::iommu_cap) -> bool {
        // SAFETY: The parent is valid.
        unsafe { bindings::device_iommu_capable((*self.as_ptr()).dev, cap) }
    }

    /// Returns whether the driver has the callbacks that every driver needs on a kernel with
    /// IOMMUFD.
    pub(crate) fn can_use_iommufd(&self) -> bool {
        let ops = self.ops();
        ops.bind_iommufd.is_some()
            && ops.unbind_iommufd.is_some()
            && ops.attach_ioas.is_some()
            && ops.detach_ioas.is_some()
    }

    /// Returns whether the parent is behind an IOMMU.
    pub(super) fn has_iommu(&self) -> bool {
        // SAFETY: The parent is valid, and its IOMMU does not change while a driver is bound.
        !unsafe { (*(*self.as_ptr()).dev).iommu }.is_null()
    }

    /// Adds the device to sysfs as `vfioN`, or `noiommu-vfioN`. Its file, if it has one, gets
    /// `number`.
    ///
    /// # Safety
    ///
    /// The device is not in sysfs, and no other thread adds it.
    pub(super) unsafe fn add(&self, noiommu: bool, number: Option<&DevNumber>) -> Result {
        let prefix = if noiommu { c"noiommu-" } else { c"" };
        // SAFETY: `init` initialised the device. By this function's contract it has not been added
        // yet, so its name and number may be set.
        unsafe {
            let dev = &raw mut (*self.as_ptr()).device;
            to_result(bindings::dev_set_name(
                dev,
                c"%svfio%d".as_char_ptr(),
                prefix.as_char_ptr(),
                self.index(),
            ))?;
            (*dev).devt = number.map_or(0, DevNumber::as_raw);
            to_result(bindings::device_add(dev))
        }
    }

    /// Removes the device from sysfs.
    ///
    /// # Safety
    ///
    /// The device is in sysfs, and no other thread removes it.
    pub(super) unsafe fn del(&self) {
        // SAFETY: By this function's contract.
        unsafe { bindings::device_del(&raw mut (*self.as_ptr()).device) }
    }

    /// Returns the number of open files, which changes only with the lock of the device's set held.
    pub(crate) fn open_count(&self) -> u32 {
        self.open_count_field().load(Ordering::Relaxed)
    }

    /// Returns the field `open_count`. It is atomic because drivers that pin pages cause it to be
    /// read without the lock.
    pub(super) fn open_count_field(&self) -> &AtomicU32 {
        // SAFETY: Only the core changes the field, and it does so atomically.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.as_ptr()).open_count) }
    }
}

/// Allocates a driver's structure of `size` bytes, which begins with a `struct vfio_device`, and
/// initialises the latter. The caller gets the first reference to the device.
///
/// # Errors
///
/// Returns `EINVAL` if `size` is too small; `ENOMEM`; `ENOSPC`; or the error of the driver's
/// `init`.
///
/// # Safety
///
/// `dev` and `ops` outlive the device.
pub(crate) unsafe fn alloc(
    size: usize,
    dev: *mut bindings::device,
    ops: *const bindings::vfio_device_ops,
) -> Result<NonNull<bindings::vfio_device>> {
    if size < core::mem::size_of::<bindings::vfio_device>() {
        return Err(EINVAL);
    }
    let memory = KVVec::<u8>::with_capacity(size, GFP_KERNEL | __GFP_ZERO)?;
    let (memory, _, _) = memory.into_raw_parts();
    let device = NonNull::new(memory.cast::<bindings::vfio_device>()).ok_or(ENOMEM)?;
    // SAFETY: The memory is zeroed and large enough, and `kvfree()` can free it. The caller
    // guarantees the rest.
    unsafe { init(device.as_ptr(), dev, ops) }
        // SAFETY: This function owns the memory, and nothing refers to it.
        .inspect_err(|_| unsafe { bindings::kvfree(device.as_ptr().cast()) })?;
    Ok(device)
}

/// Initialises a device in a driver's zeroed memory.
///
/// # Safety
///
/// `device` points to zeroed memory that [`release_callback`] may free by `kvfree()`. `dev` and
/// `ops` outlive the device.
unsafe fn init(
    device: *mut bindings::vfio_device,
    dev: *mut bindings::device,
    ops: *const bindings::vfio_device_ops,
) -> Result {
    let index = DEVICE_IDA.lock().alloc()?;
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
        unsafe { set::release(device) };
        DEVICE_IDA.lock().free(index);
        return Err(e);
    }
    // SAFETY: As above.
    unsafe {
        bindings::device_initialize(&raw mut (*device).device);
        (*device).device.release = Some(release_callback);
        (*device).device.class = super::CLASS.as_ptr();
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
        set::release(device);
        DEVICE_IDA.lock().free((*device).index);
        if let Some(release) = (*(*device).ops).release {
            release(device);
        }
        drop(Inode::from_raw((*device).inode, &DEVICE_FS));
        bindings::kvfree(device.cast());
    }
}
