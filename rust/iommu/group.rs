// SPDX-License-Identifier: GPL-2.0

//! IOMMU groups: the unit of isolation.

use core::{
    ops::Deref,
    ptr::NonNull, //
};

use kernel::{
    device::{
        Bound,
        Device, //
    },
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    sync::{
        aref::{
            ARef,
            AlwaysRefCounted, //
        },
        global_lock, //
    },
    types::Opaque, //
};

use crate::{
    bindings,
    tree::{
        Node,
        Tree, //
    }, //
};

/// A set of devices that an IOMMU can't distinguish, or can't isolate from each other.
///
/// A device belongs to at most one group. The IOMMU core creates the groups of physical devices; no
/// other code can add devices to them. A [`SoftwareGroup`] is for devices that have no IOMMU of
/// their own.
///
/// # Invariants
///
/// Wraps a valid `struct iommu_group`; `iommu_group_ref_get()` counts references to it.
#[repr(transparent)]
pub struct Group(Opaque<bindings::iommu_group>);

// SAFETY: Groups are reference counted, and may be released from any thread.
unsafe impl Send for Group {}

// SAFETY: The group's own mutex serialises everything that changes a group through a shared
// reference. Its number and its name never change.
unsafe impl Sync for Group {}

// SAFETY: The two functions below count references to a group.
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

/// Returns the C structure of a device.
pub fn raw_device(dev: &Device) -> *mut bindings::device {
    // CAST: `Device` is a transparent wrapper of the C structure.
    core::ptr::from_ref(dev).cast_mut().cast()
}

global_lock! {
    // SAFETY: `init_lock` initialises it before the module can be used.
    /// The groups of the devices in software groups, indexed by the address of the C structure of
    /// the device. A device has an entry before it joins its group, and until it has left.
    unsafe(uninit) static MEMBERS: SpinLock<Tree<usize, ARef<Group>>> = Tree::new();
}

/// Returns the key of `dev` in [`MEMBERS`](static@MEMBERS).
fn address(dev: &Device) -> usize {
    raw_device(dev).addr()
}

/// Initialises the lock of the members of software groups.
///
/// # Safety
///
/// Module init calls this once, before any other function of this module.
pub(crate) unsafe fn init_lock() {
    // SAFETY: By this function's contract.
    unsafe { MEMBERS.init() };
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

impl Eq for Group {}

impl Group {
    /// Returns the group of `dev`, if it has one.
    pub fn of(dev: &Device<Bound>) -> Option<ARef<Self>> {
        Self::look_up(&MEMBERS.lock(), dev)
    }

    /// Returns the software group of `dev`, if it is in one.
    pub fn of_software(dev: &Device) -> Option<ARef<Self>> {
        MEMBERS.lock().get(&address(dev)).cloned()
    }

    /// As [`of`](Self::of), with [`MEMBERS`](static@MEMBERS) locked.
    fn look_up(members: &Tree<usize, ARef<Self>>, dev: &Device<Bound>) -> Option<ARef<Self>> {
        if let Some(group) = members.get(&address(dev)) {
            return Some(group.clone());
        }
        // The function takes no lock, but no group can be freed here. The device leaves the group of
        // its IOMMU when it is removed from its bus, after its driver was unbound. It is in no
        // software group until the lock is released.
        // SAFETY: `dev` is a valid device.
        let group = NonNull::new(unsafe { bindings::iommu_group_get(raw_device(dev)) })?;
        // SAFETY: `iommu_group_get` returned a counted reference, which this function owns.
        Some(unsafe { ARef::from_raw(group.cast()) })
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

    /// Returns the C pointer.
    pub fn as_ptr(&self) -> *mut bindings::iommu_group {
        self.0.get()
    }

    /// Returns the number of the group, as in `/sys/kernel/iommu_groups` and `/dev/vfio`.
    pub fn id(&self) -> i32 {
        // SAFETY: The group is valid.
        unsafe { bindings::iommu_group_id(self.as_ptr()) }
    }

    /// Returns whether the DMA of the group's devices has an owner: a kernel driver or a process.
    ///
    /// The result may be outdated on return.
    pub fn dma_owner_claimed(&self) -> bool {
        // SAFETY: The group is valid.
        unsafe { bindings::iommu_group_dma_owner_claimed(self.as_ptr()) }
    }

    /// Returns whether the devices can't raise the interrupts of other devices (isolated MSI).
    pub fn has_isolated_msi(&self) -> bool {
        // SAFETY: The group is valid.
        unsafe { bindings::iommu_group_has_isolated_msi(self.as_ptr()) }
    }

    /// Checks that the group has a device, and that each of its devices has an IOMMU.
    ///
    /// # Errors
    ///
    /// `ENODEV` if that isn't the case.
    pub fn require_iommu(&self) -> Result {
        let mut found = Err(ENODEV);
        self.for_each_device(|dev| {
            // SAFETY: `dev` is a valid device.
            let iommu = unsafe { (*raw_device(dev)).iommu };
            // SAFETY: The group's mutex is held, so the IOMMU core frees nothing of the device.
            found = if iommu.is_null() || unsafe { (*iommu).iommu_dev }.is_null() {
                Err(ENODEV)
            } else {
                Ok(())
            };
            found
        })?;
        found
    }

    /// Calls `f` for each device of the group, until `f` returns an error.
    ///
    /// The group's mutex is held during the calls, so `f` must not call functions that take it, or a
    /// lock inside of which it is taken. Of the methods of this type it may only call
    /// [`id`](Group::id) and [`as_ptr`](Group::as_ptr).
    ///
    /// # Errors
    ///
    /// The error that `f` returned.
    pub fn for_each_device<F: FnMut(&Device) -> Result>(&self, mut f: F) -> Result {
        /// Calls the closure to which `data` points.
        ///
        /// # Safety
        ///
        /// `dev` is a valid device, and `data` points to an `F` to which the callee has exclusive
        /// access during the call.
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
        // SAFETY: The group is valid; the function passes `data` to the callback unchanged, and `f`
        // is borrowed during the call.
        to_result(unsafe {
            bindings::iommu_group_for_each_dev(
                self.as_ptr(),
                (&raw mut f).cast(),
                Some(callback::<F>),
            )
        })
    }
}

/// A group for devices that have no IOMMU of their own.
#[derive(Clone)]
pub struct SoftwareGroup(ARef<Group>);

impl Deref for SoftwareGroup {
    type Target = Group;

    fn deref(&self) -> &Group {
        &self.0
    }
}

impl From<SoftwareGroup> for ARef<Group> {
    fn from(group: SoftwareGroup) -> Self {
        group.0
    }
}

impl SoftwareGroup {
    /// Creates a group without devices. Sysfs shows its name.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or an error from sysfs.
    pub fn new(name: &CStr) -> Result<Self> {
        // SAFETY: There are no requirements.
        let group = from_err_ptr(unsafe { bindings::iommu_group_alloc() })?;
        let group = NonNull::new(group).ok_or(ENOMEM)?;
        // SAFETY: `iommu_group_alloc` returned a counted reference, which this function owns.
        let group: ARef<Group> = unsafe { ARef::from_raw(group.cast()) };
        // SAFETY: The group is valid, and no other code sets its name. The function copies the
        // string.
        to_result(unsafe { bindings::iommu_group_set_name(group.as_ptr(), name.as_char_ptr()) })?;
        Ok(Self(group))
    }

    /// Adds `dev` to this group until the result is dropped.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the device is already in a group; `ENOMEM`; or an error from sysfs.
    pub fn add(&self, dev: &Device<Bound>) -> Result<Member> {
        let node = Node::new(address(dev), self.0.clone())?;
        let mut members = MEMBERS.lock();
        let present = Group::look_up(&members, dev);
        if present.is_some() {
            drop(members);
            return Err(EEXIST);
        }
        members.insert(node);
        drop(members);
        self.link(dev).inspect_err(|_| set_entry(dev, None))?;
        // INVARIANT: The device and its entry were just added.
        Ok(Member {
            dev: dev.into(),
            group: Some(self.clone()),
        })
    }

    /// Adds `dev`, which is in no group, and whose entry in [`MEMBERS`](static@MEMBERS) the caller
    /// owns.
    fn link(&self, dev: &Device) -> Result {
        // SAFETY: Both are valid, and the device isn't in a group. The IOMMU core adds a device to a
        // group only when the device gets its driver or its IOMMU does, not later.
        to_result(unsafe { bindings::iommu_group_add_device(self.as_ptr(), raw_device(dev)) })
    }
}

/// A device in a software group. Dropping it removes the device from the group.
///
/// # Invariants
///
/// `dev` is in `group`, unless it was removed from its bus, and has an entry in
/// [`MEMBERS`](static@MEMBERS), which only this value changes. It has neither if `group` is `None`.
pub struct Member {
    dev: ARef<Device>,
    group: Option<SoftwareGroup>,
}

impl Member {
    /// Moves the device to `to`.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is in no group; `ENOMEM`; or an error from sysfs. After an error the
    /// group of the device is unchanged, unless adding it to this group again fails, too: then the
    /// device is in no group, and a log message is written.
    pub fn move_to(&mut self, to: &SoftwareGroup) -> Result {
        /// Number of attempts to add the device to its former group again, which takes a few small
        /// allocations.
        const TRIES: usize = 16;
        let from = self.group.take().ok_or(ENODEV)?;
        // A device has only one link to its group, so it can't be in both groups at the same time.
        unlink(&self.dev);
        let moved = to.link(&self.dev);
        let moved_back = moved.is_err() && (0..TRIES).any(|_| from.link(&self.dev).is_ok());
        let now = if moved.is_ok() {
            Some(to)
        } else if moved_back {
            Some(&from)
        } else {
            dev_warn!(
                self.dev,
                "cannot be moved back to group {}: out of memory; remove the device\n",
                from.id()
            );
            None
        };
        set_entry(&self.dev, now);
        // INVARIANT: The device is in this group, as its entry says.
        self.group = now.cloned();
        moved
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.group.is_some() {
            unlink(&self.dev);
            set_entry(&self.dev, None);
        }
    }
}

/// Changes the entry of `dev` in [`MEMBERS`](static@MEMBERS), which the caller owns, to `group`, or
/// removes it.
fn set_entry(dev: &Device, group: Option<&SoftwareGroup>) {
    let mut members = MEMBERS.lock();
    let former = match group {
        Some(group) => members
            .get_mut(&address(dev))
            .map(|entry| core::mem::replace(entry, group.0.clone())),
        None => members.remove(&address(dev)),
    };
    drop(members);
    // The last reference to a group is not dropped with a spinlock held.
    drop(former);
}

/// Removes a device from its software group. The caller owns its entry in
/// [`MEMBERS`](static@MEMBERS).
fn unlink(dev: &Device) {
    // SAFETY: The device is valid; the function does nothing if the device is in no group.
    unsafe { bindings::iommu_group_remove_device(raw_device(dev)) };
}
