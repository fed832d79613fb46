// SPDX-License-Identifier: GPL-2.0

//! Device sets: devices that are affected by the same reset, and the lock for opening and closing
//! them.
//!
//! A set is a `struct vfio_device_set`, because C drivers take its lock and walk its list.

use core::{
    mem::ManuallyDrop,
    ops::Deref,
    ptr::NonNull,
    sync::atomic::Ordering, //
};

use kernel::{
    error::to_result,
    prelude::*,
    static_lock_class,
    sync::{
        global_lock,
        Arc, //
    }, //
};
use kernel_ext::{
    bindings,
    iommufd::Context,
    tree::{
        Node,
        Tree, //
    }, //
};

use super::{
    registration::{
        RegistrationRef,
        Unregistered, //
    },
    Device, //
};
use crate::{
    iommu_driver::Iommu,
    kvm::KvmRef, //
};

/// The address space in which a device is opened.
#[derive(Clone)]
pub(crate) enum AddressSpace {
    /// That of a container.
    Container(Arc<Iommu>),
    /// Those of an iommufd. The device is bound to it, and is attached to one of them later.
    Iommufd(Context),
    /// None. The device has no IOMMU, and its group is in an iommufd.
    Untranslated(Context),
}

global_lock! {
    // SAFETY: `init_lock` initialises it before the module can be used.
    unsafe(uninit) static DEVICE_SETS: Mutex<Sets> = Sets::new();
}

/// Initialises the lock of the table of sets.
///
/// # Safety
///
/// Module init calls this once, before any other function of this module.
pub(crate) unsafe fn init_lock() {
    // SAFETY: By this function's contract.
    unsafe { DEVICE_SETS.init() };
}

/// A set. Dropping it frees it.
///
/// # Invariants
///
/// Points to a set that was allocated as a box, and owns it.
struct Set(NonNull<bindings::vfio_device_set>);

// SAFETY: The fields of a set are guarded by the table's lock or by the set's lock.
unsafe impl Send for Set {}

impl Set {
    fn new(id: usize) -> Result<Self> {
        let set = KBox::leak(KBox::new(
            bindings::vfio_device_set {
                set_id: id as *mut _,
                ..pin_init::zeroed()
            },
            GFP_KERNEL,
        )?);
        // SAFETY: This function owns the set, which does not move until it is freed.
        unsafe {
            bindings::__mutex_init(
                &raw mut set.lock,
                c"vfio_device_set::lock".as_char_ptr(),
                static_lock_class!().as_ptr(),
            );
            bindings::INIT_LIST_HEAD(&raw mut set.device_list);
        }
        // INVARIANT: The box was leaked above.
        Ok(Self(NonNull::from(set)))
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        drop(unsafe { KBox::from_raw(self.0.as_ptr()) });
    }
}

/// The sets that have a device, indexed by id.
///
/// # Invariants
///
/// A set is in the table, and therefore valid, while its `device_count` is not zero. The table's
/// lock guards that field and no other field of a set.
struct Sets(Tree<usize, Set>);

impl Sets {
    /// Creates an empty table.
    const fn new() -> Self {
        Self(Tree::new())
    }

    /// Increments the device count of the set `id`. Returns `None` if there is no such set.
    fn count(&mut self, id: usize) -> Option<NonNull<bindings::vfio_device_set>> {
        let set = self.0.get(&id)?.0;
        // SAFETY: The set is in the table, and the table's lock is held because the table is
        // borrowed from it.
        unsafe { (*set.as_ptr()).device_count += 1 };
        Some(set)
    }

    /// Decrements the device count of `set`. Removes the set from the table and returns it if this
    /// was its last device.
    ///
    /// # Safety
    ///
    /// The caller owns one count of `set`, and does not use the set through that count afterwards.
    unsafe fn discount(&mut self, set: NonNull<bindings::vfio_device_set>) -> Option<Set> {
        // SAFETY: The caller's count keeps the set valid. The table's lock is held because the
        // table is borrowed from it.
        let set = unsafe { &mut *set.as_ptr() };
        set.device_count -= 1;
        if set.device_count > 0 {
            return None;
        }
        self.0.remove(&(set.set_id as usize))
    }
}

/// Increments the device count of the set `id`. Creates the set if it does not exist.
fn join(id: usize) -> Result<NonNull<bindings::vfio_device_set>> {
    let present = DEVICE_SETS.lock().count(id);
    if let Some(set) = present {
        return Ok(set);
    }
    let set = Set::new(id)?;
    let new = set.0;
    let node = Node::new(id, set)?;
    let mut sets = DEVICE_SETS.lock();
    if let Some(set) = sets.count(id) {
        // Another thread created the set meanwhile.
        return Ok(set);
    }
    sets.0.insert(node);
    // SAFETY: The set is now in the table, whose lock is held.
    unsafe { (*new.as_ptr()).device_count = 1 };
    Ok(new)
}

impl Unregistered<'_> {
    /// Returns whether the device is in a set.
    fn has_set(&self) -> bool {
        // SAFETY: Only the thread with this value changes the field.
        !unsafe { (*self.as_ptr()).dev_set }.is_null()
    }
}

/// Adds `device` to a set of its own if its driver has not added it to a set.
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn ensure(device: &mut Unregistered<'_>) -> Result {
    if device.has_set() {
        return Ok(());
    }
    let id = device.as_ptr() as usize;
    assign(device, id)
}

/// Adds `device` to the set `id`. Creates the set if it does not exist.
///
/// The table's lock is not held while this waits for the set's lock, which a driver may hold for
/// any time. So other devices don't have to wait for that driver.
///
/// # Errors
///
/// `EINVAL` if `id` is 0, or the device is in a set; `ENOMEM`.
pub(crate) fn assign(device: &mut Unregistered<'_>, id: usize) -> Result {
    if id == 0 || device.has_set() {
        return Err(EINVAL);
    }
    let set = join(id)?.as_ptr();
    // SAFETY: The set counts this device, so it is valid. The set's lock is held while the device's
    // fields are written, which happens once, before the device is registered.
    unsafe {
        bindings::mutex_lock(&raw mut (*set).lock);
        (*device.as_ptr()).dev_set = set;
        bindings::list_add_tail(
            &raw mut (*device.as_ptr()).dev_set_list,
            &raw mut (*set).device_list,
        );
        bindings::mutex_unlock(&raw mut (*set).lock);
    }
    Ok(())
}

/// Removes a device from its set, if it is in one, before the device is freed.
///
/// # Safety
///
/// Nothing else uses the device any more.
pub(super) unsafe fn release(device: *mut bindings::vfio_device) {
    // SAFETY: By this function's contract.
    let Some(set) = NonNull::new(unsafe { (*device).dev_set }) else {
        return;
    };
    // SAFETY: The set counts this device, so it is valid, and its lock guards the list.
    unsafe {
        bindings::mutex_lock(&raw mut (*set.as_ptr()).lock);
        bindings::kernel_ext_list_del(&raw mut (*device).dev_set_list);
        bindings::mutex_unlock(&raw mut (*set.as_ptr()).lock);
    }
    // SAFETY: This drops the count of the device, which is no longer in the set.
    let last = unsafe { DEVICE_SETS.lock().discount(set) };
    drop(last);
}

/// Returns the sum of the open counts of the devices in `set`.
///
/// # Safety
///
/// `set` is valid and its lock is held.
pub(crate) unsafe fn open_count(set: *mut bindings::vfio_device_set) -> u32 {
    // SAFETY: By this function's contract.
    unsafe { devices(set) }
        // SAFETY: The devices in the list are valid while the lock is held.
        .map(|device| unsafe { (*device).open_count })
        .sum()
}

/// Returns the device in `set` whose parent is `dev`, or null.
///
/// # Safety
///
/// `set` is valid and its lock is held.
pub(crate) unsafe fn find(
    set: *mut bindings::vfio_device_set,
    dev: *mut bindings::device,
) -> *mut bindings::vfio_device {
    // SAFETY: By this function's contract.
    unsafe { devices(set) }
        // SAFETY: The devices in the list are valid while the lock is held.
        .find(|&device| unsafe { (*device).dev } == dev)
        .unwrap_or(core::ptr::null_mut())
}

/// # Safety
///
/// `set` is valid and its lock is held until the iterator is done.
unsafe fn devices(
    set: *mut bindings::vfio_device_set,
) -> impl Iterator<Item = *mut bindings::vfio_device> {
    // SAFETY: By this function's contract.
    let head = unsafe { &raw mut (*set).device_list };
    // SAFETY: As above, and the list is well formed.
    let mut entry = unsafe { (*head).next };
    core::iter::from_fn(move || {
        if entry == head {
            return None;
        }
        let offset = core::mem::offset_of!(bindings::vfio_device, dev_set_list);
        let device = entry.wrapping_byte_sub(offset).cast();
        // SAFETY: The entry is in the list, which does not change while the lock is held.
        entry = unsafe { (*entry).next };
        Some(device)
    })
}

/// A held lock of a device's set. The lock guards opening and closing of the set's devices.
///
/// While it is held, `open_count` is the number of the device's files: the core counts them nowhere
/// else. `kvm` and `put_kvm` are set from the first open to the last close if the device refers to
/// a KVM instance, and null otherwise.
pub(crate) struct SetGuard<'a> {
    device: &'a Device,
    _not_send: kernel::types::NotThreadSafe,
}

/// A file of an open device: one of those that `open_count` counts. [`SetGuard::remove_file`] removes
/// it.
///
/// # Invariants
///
/// `open_count` of the device counts this file. So the device is open, and its [`Opened`] keeps it
/// registered.
pub(crate) struct OpenRef(NonNull<Device>);

// SAFETY: A `Device` may be used from any task, and the count is not tied to a task.
unsafe impl Send for OpenRef {}
// SAFETY: As above.
unsafe impl Sync for OpenRef {}

impl Deref for OpenRef {
    type Target = Device;

    fn deref(&self) -> &Device {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

/// An address space in which [`SetGuard::open`] has opened a device. [`SetGuard::close`] closes it.
/// Otherwise the device stays open and registered.
///
/// # Invariants
///
/// The device is open in `space`: registered in a container's address space, or bound to an
/// iommufd.
pub(crate) struct Opened {
    device: ManuallyDrop<RegistrationRef>,
    space: AddressSpace,
    /// The id of the device's object in the iommufd, otherwise zero.
    id: u32,
}

impl Opened {
    /// Returns the id of the device's object in the iommufd in which the device is open. It is zero
    /// in other address spaces.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Returns the device that is open.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Returns whether `device` is the one that is open.
    pub(crate) fn is_of(&self, device: &Device) -> bool {
        core::ptr::eq(self.device(), device)
    }

    /// Returns the address space in which the device is open.
    pub(crate) fn space(&self) -> &AddressSpace {
        &self.space
    }
}

impl RegistrationRef {
    /// Locks the device's set.
    pub(crate) fn lock_set(&self) -> SetGuard<'_> {
        // SAFETY: A registered device has a set, which exists as long as the device.
        unsafe { bindings::mutex_lock(&raw mut (*(*self.as_ptr()).dev_set).lock) };
        SetGuard {
            device: self,
            _not_send: kernel::types::NotThreadSafe,
        }
    }
}

impl<'a> SetGuard<'a> {
    /// Returns the device whose set is locked.
    pub(super) fn device(&self) -> &'a Device {
        self.device
    }

    /// Adds a file if the device is open.
    pub(crate) fn add_file(&mut self) -> Option<OpenRef> {
        let count = self.device.open_count().checked_add(1)?;
        if count == 1 {
            return None;
        }
        self.device
            .open_count_field()
            .store(count, Ordering::Relaxed);
        // INVARIANT: This file was counted above.
        Some(OpenRef(NonNull::from(self.device)))
    }

    /// Removes a file of this device. Returns it if it is the last one, which [`SetGuard::close`]
    /// removes.
    pub(crate) fn remove_file(&mut self, file: OpenRef) -> Option<OpenRef> {
        let count = self.device.open_count();
        if count <= 1 || !core::ptr::eq(&*file, self.device) {
            return Some(file);
        }
        self.device
            .open_count_field()
            .store(count - 1, Ordering::Relaxed);
        None
    }

    /// Opens the device for its first file: sets the KVM instance that the device refers to, if
    /// any, adds the device to `space`, and calls the driver. On failure the device is closed
    /// again.
    ///
    /// # Errors
    ///
    /// Returns `EBUSY` if the device is open; `ENODEV` if it has too many users; or the driver's
    /// error.
    pub(crate) fn open(
        &mut self,
        space: AddressSpace,
        kvm: Option<KvmRef>,
    ) -> Result<(OpenRef, Opened)> {
        if self.device.open_count() > 0 {
            return Err(EBUSY);
        }
        let registration = self.device.try_get_registration().ok_or(ENODEV)?;
        let device = self.device.as_ptr();
        if let Some(kvm) = kvm {
            let (kvm, put) = kvm.into_raw();
            // SAFETY: The set's lock guards the fields.
            unsafe {
                (*device).kvm = kvm.as_ptr();
                (*device).put_kvm = Some(put);
            }
        }
        // The driver may pin pages as long as it may be notified of unmaps.
        self.device.open_count_field().store(1, Ordering::Relaxed);
        let id = self.enter(&space).inspect_err(|_| self.end_open())?;
        // INVARIANT: The device was just registered or bound.
        let opened = Opened {
            device: ManuallyDrop::new(registration),
            space,
            id,
        };
        let result = match self.device.ops().open_device {
            // SAFETY: The set's lock is held and this is the first open.
            Some(open) => to_result(unsafe { open(device) }),
            None => Ok(()),
        };
        match result {
            // INVARIANT: This file was counted above.
            Ok(()) => Ok((OpenRef(NonNull::from(self.device)), opened)),
            Err(e) => {
                self.release(opened);
                Err(e)
            }
        }
    }

    /// Adds the device, which is being opened, to `space`. Returns the id of its object if that is
    /// an iommufd, otherwise zero.
    fn enter(&mut self, space: &AddressSpace) -> Result<u32> {
        match space {
            AddressSpace::Container(iommu) => {
                // SAFETY: The device was closed, so it is registered in no address space. `close`
                // and `release` unregister it; its registration ends only after it is closed.
                unsafe { iommu.register_device(self.device) };
                Ok(0)
            }
            // SAFETY: The device was closed, so it is not bound. `release` unbinds it.
            AddressSpace::Iommufd(context) => unsafe { self.bind_iommufd(context) },
            AddressSpace::Untranslated(_) => Ok(0),
        }
    }

    /// Closes the device, whose last file is `last`. Does nothing if that is not the last one, or
    /// if the arguments are of another device.
    pub(crate) fn close(&mut self, last: OpenRef, opened: Opened) {
        let is_last = self.device.open_count() == 1 && core::ptr::eq(&*last, self.device);
        if !is_last || !opened.is_of(self.device) {
            return;
        }
        let device = self.device.as_ptr();
        if let Some(close) = self.device.ops().close_device {
            // SAFETY: The set's lock is held and this is the last close.
            unsafe { close(device) }
        }
        // SAFETY: The set's lock is held, and there is no user left.
        unsafe { (*device).precopy_info_v2 = 0 };
        self.release(opened);
    }

    /// Undoes what [`SetGuard::open`] does before it calls the driver.
    fn release(&mut self, opened: Opened) {
        match opened.space {
            // SAFETY: By the type invariant of `Opened`. Both callers have checked that it is of
            // this device.
            AddressSpace::Container(iommu) => unsafe { iommu.unregister_device(self.device) },
            // SAFETY: As above. The driver has closed the device, or has not opened it.
            AddressSpace::Iommufd(_) => unsafe { self.unbind_iommufd() },
            AddressSpace::Untranslated(_) => {}
        }
        self.end_open();
        drop(ManuallyDrop::into_inner(opened.device));
    }

    /// Marks the device as closed, and drops its KVM instance.
    fn end_open(&mut self) {
        self.device.open_count_field().store(0, Ordering::Relaxed);
        let device = self.device.as_ptr();
        // SAFETY: The set's lock guards the fields.
        let (kvm, put) = unsafe {
            (
                core::mem::replace(&mut (*device).kvm, core::ptr::null_mut()),
                core::mem::take(&mut (*device).put_kvm),
            )
        };
        if let (Some(kvm), Some(put)) = (NonNull::new(kvm), put) {
            // SAFETY: `open` stored both, and they are no longer in the device.
            drop(unsafe { KvmRef::from_raw(kvm, put) });
        }
    }

    /// Tells drivers whether the device is open through a device file: `cdev_opened`.
    pub(super) fn set_open_by_device_file(&mut self, open: bool) {
        // SAFETY: The set's lock guards the field. The other fields of this byte don't change while
        // the device is registered.
        unsafe { bindings::vfio_device::set_cdev_opened_raw(self.device.as_ptr(), u8::from(open)) };
    }
}

impl Drop for SetGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: `RegistrationRef::lock_set` took the lock in this task.
        unsafe { bindings::mutex_unlock(&raw mut (*(*self.device.as_ptr()).dev_set).lock) };
    }
}
