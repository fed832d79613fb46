// SPDX-License-Identifier: GPL-2.0

//! `struct mdev_device`: a mediated device.

use core::{
    marker::PhantomData,
    ptr::NonNull,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    }, //
};

use kernel::{
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_char,
        c_ulong, //
    },
    prelude::*,
    sync::aref::{
        ARef,
        AlwaysRefCounted, //
    },
    types::Opaque, //
};
use kernel_ext::bindings;

use crate::{
    bus::{
        self,
        Reservation, //
    },
    parent::{
        Parent,
        Staying,
        Type,
        UnregGuard, //
    },
    sysfs::{
        self,
        Table, //
    },
    uuid::Uuid, //
};

/// A device of the bus.
///
/// # Invariants
///
/// It was created by [`NewMdev::new`].
#[repr(C)]
pub(crate) struct Mdev {
    raw: Opaque<bindings::mdev_device>,
    reservation: Reservation,
    /// Whether creation has finished. Until then the device cannot be removed.
    complete: AtomicBool,
    /// Whether [`Mdev::take`] can take the device.
    kept: AtomicBool,
}

// SAFETY: Mutable fields are atomic or protected by the driver core.
unsafe impl Send for Mdev {}
// SAFETY: As above.
unsafe impl Sync for Mdev {}

// SAFETY: The functions count references to the `struct device`, whose release function frees the
// rest.
unsafe impl AlwaysRefCounted for Mdev {
    fn inc_ref(&self) {
        // SAFETY: A shared reference implies a non-zero reference count.
        unsafe { bindings::get_device(self.raw_device()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: By this function's contract. The structure begins with its `struct device`.
        unsafe { bindings::put_device(obj.cast().as_ptr()) };
    }
}

impl Mdev {
    /// # Safety
    ///
    /// `device` comes from [`NewMdev::new`], and stays allocated for all of `'a`.
    pub(crate) unsafe fn from_raw<'a>(device: *mut bindings::mdev_device) -> &'a Self {
        // SAFETY: By this function's contract; `Mdev` begins with a `struct mdev_device`.
        unsafe { &*device.cast() }
    }

    fn as_ptr(&self) -> *mut bindings::mdev_device {
        self.raw.get()
    }

    pub(crate) fn raw_device(&self) -> *mut bindings::device {
        // SAFETY: The field is part of the structure.
        unsafe { &raw mut (*self.as_ptr()).dev }
    }

    /// Returns the device's UUID, which is its name.
    pub(crate) fn uuid(&self) -> Uuid {
        self.reservation.uuid()
    }

    /// Takes a device whose creation has finished, for the first caller. `parent` is the lock of its
    /// parent.
    pub(crate) fn take<'a, const WRITE: bool>(
        &self,
        parent: &'a UnregGuard<'_, WRITE>,
    ) -> Option<LinkedMdev<'a>> {
        let taken = parent.is_of_parent(self) && self.kept.swap(false, Ordering::Acquire);
        taken.then(|| {
            // SAFETY: `LinkedMdev::keep` set the flag, and gave up this reference.
            let mdev = unsafe { ARef::from_raw(self.into()) };
            // INVARIANT: It also gave up the device in this state. Its parent stays registered as
            // long as the lock is held.
            LinkedMdev(AddedMdev(mdev, PhantomData))
        })
    }

    fn kobject(&self) -> *mut bindings::kobject {
        // SAFETY: The field is part of the structure.
        unsafe { &raw mut (*self.raw_device()).kobj }
    }

    fn name(&self) -> *const c_char {
        // SAFETY: `NewMdev::new` set the name of the device.
        unsafe { (*self.kobject()).name }
    }
}

/// A device that is not visible yet.
pub(super) struct NewMdev(ARef<Mdev>);

impl NewMdev {
    /// Allocates a device of type `ty`, which is not visible yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(ty: &Type, reservation: Reservation) -> Result<Self> {
        let uuid = reservation.uuid();
        let mdev = KBox::into_raw(KBox::init(
            init!(Mdev {
                raw <- pin_init::init_zeroed(),
                reservation,
                complete: AtomicBool::new(false),
                kept: AtomicBool::new(false),
            }),
            GFP_KERNEL,
        )?);
        let raw: *mut bindings::mdev_device = mdev.cast();
        // SAFETY: This function owns the structure, which is zeroed and exists until
        // `release_callback`.
        let named = unsafe {
            let dev = &raw mut (*raw).dev;
            bindings::device_initialize(dev);
            (*dev).parent = ty.parent().raw_device();
            (*dev).bus = bus::as_ptr();
            (*dev).release = Some(release_callback);
            (*dev).groups = (&raw const GROUPS.0).cast_mut().cast();
            (*raw).uuid.b = uuid.to_guid();
            (*raw).type_ = ty.as_ptr();
            bindings::INIT_LIST_HEAD(&raw mut (*raw).next);
            bindings::dev_set_name(dev, c"%pUl".as_char_ptr(), &raw const (*raw).uuid)
        };
        // SAFETY: `KBox::into_raw` returns no null pointer. `device_initialize` set the count to
        // one reference, which belongs to this function.
        // INVARIANT: All fields are set.
        let mdev = unsafe { ARef::from_raw(NonNull::new_unchecked(mdev)) };
        to_result(named)?;
        Ok(Self(mdev))
    }

    /// Adds the device to sysfs. `parent` is the lock of its parent.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is that of another one; the errors of the driver core.
    pub(super) fn add<'a>(self, parent: &'a Staying<'_>) -> Result<AddedMdev<'a>> {
        if !parent.is_of_parent(&self.0) {
            return Err(EINVAL);
        }
        // SAFETY: The device is initialised, and is added only once because this takes the value.
        to_result(unsafe { bindings::device_add(self.0.raw_device()) })?;
        // INVARIANT: The device was just added, and its parent stays registered as long as the lock
        // is held.
        Ok(AddedMdev(self.0, PhantomData))
    }
}

/// A device in sysfs, whose parent is locked for `'a`. Dropping it removes the device from sysfs and
/// unbinds it, and waits until it has no users.
///
/// # Invariants
///
/// The device is in sysfs. Its parent, and so its type, stay registered for `'a`.
pub(super) struct AddedMdev<'a>(ARef<Mdev>, PhantomData<&'a Parent>);

impl<'a> AddedMdev<'a> {
    fn ty(&self) -> &Type {
        // SAFETY: By the type invariant.
        unsafe { Type::from_raw((*self.0.as_ptr()).type_) }
    }

    /// Binds the device to the driver of its parent.
    ///
    /// # Errors
    ///
    /// The driver's errors.
    pub(super) fn bind(&self) -> Result {
        let driver = &raw const self.ty().parent().driver().driver;
        // SAFETY: The driver is registered as long as the parent is.
        to_result(unsafe { bindings::device_driver_attach(driver, self.0.raw_device()) })
    }

    /// Creates the symbolic links between the device and its type.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and the errors of sysfs.
    pub(super) fn link(self) -> Result<LinkedMdev<'a>> {
        let (ty, own, name) = (self.ty(), self.0.kobject(), self.0.name());
        // SAFETY: By the type invariant both kobjects are in sysfs.
        unsafe {
            to_result(bindings::sysfs_create_link(ty.devices_kobject(), own, name))?;
            to_result(bindings::sysfs_create_link(
                own,
                ty.kobject(),
                c"mdev_type".as_char_ptr(),
            ))
            .inspect_err(|_| bindings::sysfs_remove_link(ty.devices_kobject(), name))?;
        }
        Ok(LinkedMdev(self))
    }
}

impl Drop for AddedMdev<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::device_del(self.0.raw_device()) }
    }
}

/// A device in sysfs with the links between it and its type. Dropping it removes the links, and
/// then the device.
pub(crate) struct LinkedMdev<'a>(AddedMdev<'a>);

impl LinkedMdev<'_> {
    /// Marks the device as complete, and keeps it until [`Mdev::take`].
    pub(super) fn keep(self) {
        let mdev = &self.0 .0;
        mdev.kept.store(true, Ordering::Release);
        mdev.complete.store(true, Ordering::Release);
        core::mem::forget(self);
    }
}

impl Drop for LinkedMdev<'_> {
    fn drop(&mut self) {
        let mdev = &self.0 .0;
        // SAFETY: Both kobjects are in sysfs.
        unsafe {
            bindings::sysfs_remove_link(mdev.kobject(), c"mdev_type".as_char_ptr());
            bindings::sysfs_remove_link(self.0.ty().devices_kobject(), mdev.name());
        }
    }
}

/// A device whose attribute `remove` is being written.
///
/// # Invariants
///
/// The value exists only in the `store` callback of the attribute, and before
/// [`take`](Self::take). So the device is in sysfs.
pub(super) struct Remover<'a>(&'a Mdev);

impl<'a> Remover<'a> {
    /// Whether the creation of the device has finished.
    pub(super) fn is_complete(&self) -> bool {
        self.0.complete.load(Ordering::Acquire)
    }

    /// Returns the parent of the device.
    pub(super) fn parent(&self) -> &'a Parent {
        // SAFETY: By the type invariant. The type and the parent are in sysfs as long as the device
        // is.
        unsafe { Type::from_raw((*self.0.as_ptr()).type_) }.parent()
    }

    /// Takes the device, if its creation has finished, for exactly one writer. Removes the attribute.
    /// `parent` is the lock of its parent.
    pub(super) fn take<'b>(self, parent: &'b Staying<'_>) -> Option<LinkedMdev<'b>> {
        // SAFETY: By the type invariant.
        let first =
            unsafe { bindings::device_remove_file_self(self.0.raw_device(), &raw const REMOVE.0) };
        first.then(|| self.0.take(parent)).flatten()
    }
}

/// # Safety
///
/// Called by the driver core with the `struct device` of a [`Mdev`] that has no references left.
unsafe extern "C" fn release_callback(dev: *mut bindings::device) {
    // SAFETY: By this function's contract. `NewMdev::new` leaked the box.
    drop(unsafe { KBox::from_raw(dev.cast::<Mdev>()) });
}

static REMOVE: Table<bindings::device_attribute> = Table({
    let mut attribute: bindings::device_attribute = pin_init::zeroed();
    attribute.attr = sysfs::attribute(c"remove", 0o200);
    attribute.__bindgen_anon_2.store_const = Some(remove_callback);
    attribute
});

static ATTRIBUTES: Table<[*const bindings::attribute; 2]> =
    Table([&raw const REMOVE.0.attr, core::ptr::null()]);

static GROUP: Table<bindings::attribute_group> = Table({
    let mut group: bindings::attribute_group = pin_init::zeroed();
    group.__bindgen_anon_2.attrs_const = (&raw const ATTRIBUTES.0).cast();
    group
});

static GROUPS: Table<[*const bindings::attribute_group; 2]> =
    Table([&raw const GROUP.0, core::ptr::null()]);

/// # Safety
///
/// Called by sysfs with a device of this bus and the bytes that were written, which end with a NUL
/// byte.
unsafe extern "C" fn remove_callback(
    dev: *mut bindings::device,
    _attribute: *const bindings::device_attribute,
    page: *const c_char,
    count: usize,
) -> isize {
    from_result(|| {
        let mut wanted: c_ulong = 0;
        // SAFETY: By this function's contract.
        let parsed = unsafe { bindings::kernel_ext_kstrtoul(page, 0, &raw mut wanted) };
        to_result(parsed).map_err(|_| EINVAL)?;
        if wanted != 0 {
            // SAFETY: By this function's contract. sysfs keeps the device during the call.
            // INVARIANT: This is the callback of the attribute.
            let mdev = Remover(unsafe { Mdev::from_raw(dev.cast()) });
            super::remove(mdev)?;
        }
        Ok(count as isize)
    })
}
