// SPDX-License-Identifier: GPL-2.0

//! The unit of isolation.

use core::ptr::NonNull;

use kernel::{
    device::Device,
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    sync::aref::{
        ARef,
        AlwaysRefCounted, //
    },
    types::Opaque, //
};

use crate::bindings;

/// A set of devices that an IOMMU can't tell apart or can't keep from each other.
///
/// A device belongs to one group or none. The IOMMU core makes the groups of physical devices;
/// nobody else can put a device into those. [`alloc`](Group::alloc) makes a group for devices that
/// have no IOMMU of their own.
///
/// # Invariants
///
/// Wraps a valid `struct iommu_group`; a reference to it is counted by `iommu_group_ref_get()`.
#[repr(transparent)]
pub struct Group(Opaque<bindings::iommu_group>);

// SAFETY: Groups are reference counted, and may be released from any thread.
unsafe impl Send for Group {}

// SAFETY: What can be done with a shared reference is serialised by the group's own mutex.
unsafe impl Sync for Group {}

// SAFETY: The two functions below count references of a group.
unsafe impl AlwaysRefCounted for Group {
    fn inc_ref(&self) {
        // SAFETY: `self` is a valid group.
        unsafe { bindings::iommu_group_ref_get(self.as_ptr()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a counted reference.
        unsafe { bindings::iommu_group_put(obj.cast().as_ptr()) };
    }
}

/// The C structure of a device.
pub(super) fn raw_device(dev: &Device) -> *mut bindings::device {
    // CAST: `Device` is a transparent wrapper of the C structure.
    core::ptr::from_ref(dev).cast_mut().cast()
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

impl Eq for Group {}

impl Group {
    /// The group that `dev` is in, if any.
    pub fn of(dev: &Device) -> Option<ARef<Self>> {
        // SAFETY: `dev` is a valid device.
        let group = NonNull::new(unsafe { bindings::iommu_group_get(raw_device(dev)) })?;
        // SAFETY: `iommu_group_get` returned a counted reference, which is ours now.
        Some(unsafe { ARef::from_raw(group.cast()) })
    }

    /// Makes a group without devices.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or what sysfs says.
    pub fn alloc() -> Result<ARef<Self>> {
        // SAFETY: There are no requirements.
        let group = from_err_ptr(unsafe { bindings::iommu_group_alloc() })?;
        let group = NonNull::new(group).ok_or(ENOMEM)?;
        // SAFETY: `iommu_group_alloc` returned a counted reference, which is ours now.
        Ok(unsafe { ARef::from_raw(group.cast()) })
    }

    /// Borrows a group from its C pointer.
    ///
    /// # Safety
    ///
    /// `ptr` is a valid group for all of `'a`.
    pub unsafe fn from_ptr<'a>(ptr: *mut bindings::iommu_group) -> &'a Self {
        // SAFETY: By the contract of this function; the layouts agree.
        unsafe { &*ptr.cast() }
    }

    /// The C pointer.
    pub fn as_ptr(&self) -> *mut bindings::iommu_group {
        self.0.get()
    }

    /// The number of the group, as in `/sys/kernel/iommu_groups` and `/dev/vfio`.
    pub fn id(&self) -> i32 {
        // SAFETY: The group is valid.
        unsafe { bindings::iommu_group_id(self.as_ptr()) }
    }

    /// Gives the group a name, which sysfs then shows.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or what sysfs says.
    pub fn set_name(&self, name: &CStr) -> Result {
        // SAFETY: The group is valid and the function copies the string.
        to_result(unsafe { bindings::iommu_group_set_name(self.as_ptr(), name.as_char_ptr()) })
    }

    /// Puts `dev` into the group, which has been made by [`alloc`](Group::alloc).
    ///
    /// # Errors
    ///
    /// `EBUSY` if the device is in a group already, `ENOMEM`, or what sysfs says.
    pub fn add_device(&self, dev: &Device) -> Result {
        if Self::of(dev).is_some() {
            return Err(EBUSY);
        }
        // SAFETY: Both are valid, and the device isn't in a group.
        to_result(unsafe { bindings::iommu_group_add_device(self.as_ptr(), raw_device(dev)) })
    }

    /// Moves `dev` from this group to `to`, both made by [`alloc`](Group::alloc). The caller keeps others
    /// from changing the device's group.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device isn't in this group, `ENOMEM`, or what sysfs says. The device is then in
    /// this group as before.
    pub fn move_device(&self, dev: &Device, to: &Self) -> Result {
        /// How often putting the device back is tried: it takes a few small allocations.
        const TRIES: usize = 16;
        if Self::of(dev).is_none_or(|group| *group != *self) {
            return Err(ENODEV);
        }
        // A device has one link to its group, so it can't be in both for a moment.
        Self::remove_device(dev);
        let moved = to.add_device(dev);
        if moved.is_err() && !(0..TRIES).any(|_| self.add_device(dev).is_ok()) {
            dev_warn!(
                dev,
                "lost its group {} for want of memory: remove the device\n",
                self.id()
            );
        }
        moved
    }

    /// Takes `dev` out of its group, if it is in one.
    pub fn remove_device(dev: &Device) {
        // SAFETY: The device is valid; the function returns when it is in no group.
        unsafe { bindings::iommu_group_remove_device(raw_device(dev)) };
    }

    /// Whether somebody owns the DMA of the group's devices: a kernel driver or a program.
    ///
    /// The answer may be outdated as soon as it is given.
    pub fn dma_owner_claimed(&self) -> bool {
        // SAFETY: The group is valid.
        unsafe { bindings::iommu_group_dma_owner_claimed(self.as_ptr()) }
    }

    /// Whether the interrupts of each device are kept from reaching vectors of others.
    pub fn has_isolated_msi(&self) -> bool {
        // SAFETY: The group is valid.
        unsafe { bindings::iommu_group_has_isolated_msi(self.as_ptr()) }
    }

    /// Calls `f` for each device of the group, until it fails.
    ///
    /// The group's mutex is held meanwhile, so `f` calls nothing that takes it: of the methods here
    /// only [`id`](Group::id) and [`as_ptr`](Group::as_ptr).
    ///
    /// # Errors
    ///
    /// What `f` returned.
    pub fn for_each_device<F: FnMut(&Device) -> Result>(&self, mut f: F) -> Result {
        /// Calls the closure behind `data`.
        ///
        /// # Safety
        ///
        /// `dev` is a valid device and `data` points to an `F` that is the callee's for the call.
        unsafe extern "C" fn callback<F: FnMut(&Device) -> Result>(
            dev: *mut bindings::device,
            data: *mut c_void,
        ) -> c_int {
            // SAFETY: By the contract of this function.
            let f = unsafe { &mut *data.cast::<F>() };
            // SAFETY: By the contract of this function.
            match f(unsafe { Device::from_raw(dev) }) {
                Ok(()) => 0,
                Err(e) => e.to_errno(),
            }
        }
        // SAFETY: The group is valid; the function passes `data` on as it is, while `f` is borrowed.
        to_result(unsafe {
            bindings::iommu_group_for_each_dev(
                self.as_ptr(),
                (&raw mut f).cast(),
                Some(callback::<F>),
            )
        })
    }
}
