// SPDX-License-Identifier: GPL-2.0

//! `struct mdev_device`: a mediated device.

use core::{
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
    parent::Type,
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
/// It was created by [`Mdev::new`]. Its type and its parent are valid until [`Mdev::end`].
#[repr(C)]
pub(crate) struct Mdev {
    raw: Opaque<bindings::mdev_device>,
    reservation: Reservation,
    /// Whether creation has finished. Until then the device cannot be removed.
    complete: AtomicBool,
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
    /// `device` comes from [`Mdev::new`], and stays allocated for all of `'a`.
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

    /// Returns the device's type. Must not be called after [`Mdev::end`].
    pub(crate) fn ty(&self) -> &Type {
        // SAFETY: By the type invariant.
        unsafe { Type::from_raw((*self.as_ptr()).type_) }
    }

    /// Allocates a device of type `ty`, which is not visible yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(ty: &Type, reservation: Reservation) -> Result<ARef<Self>> {
        let uuid = reservation.uuid();
        let mdev = KBox::into_raw(KBox::init(
            init!(Self {
                raw <- pin_init::init_zeroed(),
                reservation,
                complete: AtomicBool::new(false),
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
        Ok(mdev)
    }

    /// Adds the device to sysfs.
    ///
    /// # Errors
    ///
    /// The errors of the driver core.
    pub(super) fn add(&self) -> Result {
        // SAFETY: The device is initialised, and `super::create` adds it only once.
        to_result(unsafe { bindings::device_add(self.raw_device()) })
    }

    /// Removes the device from sysfs and unbinds it. Waits until it has no users.
    pub(super) fn del(&self) {
        // SAFETY: `super::create` and `super::remove_common` call this once, after `add`.
        unsafe { bindings::device_del(self.raw_device()) }
    }

    /// Binds the device to the driver of its parent.
    ///
    /// # Errors
    ///
    /// The driver's errors.
    pub(super) fn bind(&self) -> Result {
        let driver = &raw const self.ty().parent().driver().driver;
        // SAFETY: The driver is registered as long as the parent is.
        to_result(unsafe { bindings::device_driver_attach(driver, self.raw_device()) })
    }

    /// Creates the symbolic links between the device and its type.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and the errors of sysfs.
    pub(super) fn link(&self) -> Result {
        let (ty, own) = (self.ty(), self.kobject());
        // SAFETY: Both kobjects are in sysfs.
        unsafe {
            to_result(bindings::sysfs_create_link(
                ty.devices_kobject(),
                own,
                self.name(),
            ))?;
            to_result(bindings::sysfs_create_link(
                own,
                ty.kobject(),
                c"mdev_type".as_char_ptr(),
            ))
            .inspect_err(|_| bindings::sysfs_remove_link(ty.devices_kobject(), self.name()))
        }
    }

    /// Undoes [`Mdev::link`].
    pub(super) fn unlink(&self) {
        // SAFETY: Both kobjects are in sysfs.
        unsafe {
            bindings::sysfs_remove_link(self.kobject(), c"mdev_type".as_char_ptr());
            bindings::sysfs_remove_link(self.ty().devices_kobject(), self.name());
        }
    }

    fn kobject(&self) -> *mut bindings::kobject {
        // SAFETY: The field is part of the structure.
        unsafe { &raw mut (*self.raw_device()).kobj }
    }

    fn name(&self) -> *const c_char {
        // SAFETY: `new` set the name of the device.
        unsafe { (*self.kobject()).name }
    }

    /// Marks the device as complete, and keeps it until [`Mdev::end`].
    pub(super) fn begin(this: ARef<Self>) {
        this.complete.store(true, Ordering::Release);
        core::mem::forget(this);
    }

    /// Whether [`Mdev::begin`] was called.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Returns the reference that [`Mdev::begin`] kept. Called after [`Mdev::del`].
    pub(super) fn end(&self) -> ARef<Self> {
        // SAFETY: `super::remove_common` calls this once after `begin`, so the reference of `begin`
        // exists.
        unsafe { ARef::from_raw(self.into()) }
    }

    /// Removes the attribute `remove` during a write to it. Returns true for exactly one writer.
    fn hide_remove(&self) -> bool {
        // SAFETY: Called by the `store` callback of this attribute.
        unsafe { bindings::device_remove_file_self(self.raw_device(), &raw const REMOVE.0) }
    }
}

/// # Safety
///
/// Called by the driver core with the `struct device` of a [`Mdev`] that has no references left.
unsafe extern "C" fn release_callback(dev: *mut bindings::device) {
    // SAFETY: By this function's contract. `Mdev::new` leaked the box.
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
            let mdev = unsafe { Mdev::from_raw(dev.cast()) };
            super::remove(mdev, |mdev| mdev.hide_remove())?;
        }
        Ok(count as isize)
    })
}
