// SPDX-License-Identifier: GPL-2.0

//! `struct mdev_type`: a device type of a parent, as a directory in sysfs.

use kernel::{
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_char,
        c_int, //
    },
    prelude::*,
    types::Opaque, //
};
use kernel_ext::bindings;

use crate::{
    bus,
    device,
    parent::Parent,
    sysfs::{
        self,
        Table, //
    }, //
};

/// A type of a registered parent.
///
/// # Invariants
///
/// [`Type::add`] was called for it, and its parent is registered.
#[repr(transparent)]
pub(crate) struct Type(Opaque<bindings::mdev_type>);

impl Type {
    /// # Safety
    ///
    /// `ty` was added, and its parent is registered for all of `'a`.
    pub(crate) unsafe fn from_raw<'a>(ty: *mut bindings::mdev_type) -> &'a Self {
        // SAFETY: By this function's contract. `Type` is a transparent wrapper of the structure.
        unsafe { &*ty.cast() }
    }

    /// # Safety
    ///
    /// `kobj` is the kobject of a type whose directory is in sysfs for all of `'a`.
    unsafe fn from_kobject<'a>(kobj: *mut bindings::kobject) -> &'a Self {
        let offset = core::mem::offset_of!(bindings::mdev_type, kobj);
        // SAFETY: By this function's contract. The directories are removed before their parent is
        // unregistered.
        unsafe { Self::from_raw(kobj.wrapping_byte_sub(offset).cast()) }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::mdev_type {
        self.0.get()
    }

    /// Returns the parent that the type belongs to.
    pub(crate) fn parent(&self) -> &Parent {
        // SAFETY: By the type invariant.
        unsafe { Parent::from_raw((*self.as_ptr()).parent) }
    }

    pub(crate) fn kobject(&self) -> *mut bindings::kobject {
        // SAFETY: By the type invariant.
        unsafe { &raw mut (*self.as_ptr()).kobj }
    }

    /// Returns the directory of links to the type's devices.
    pub(crate) fn devices_kobject(&self) -> *mut bindings::kobject {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_ptr()).devices_kobj }
    }

    /// Adds a type of `parent` to sysfs.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and the errors of sysfs.
    ///
    /// # Safety
    ///
    /// The names of `ty` are set, and it is in no directory. It stays valid until [`Type::remove`].
    pub(crate) unsafe fn add(ty: *mut bindings::mdev_type, parent: &Parent) -> Result {
        // SAFETY: By this function's contract. `release_callback` drops the reference to the
        // device.
        unsafe {
            (*ty).kobj.kset = parent.types_kset();
            (*ty).parent = core::ptr::from_ref(parent).cast_mut().cast();
            bindings::get_device(parent.raw_device());
            let kobj = &raw mut (*ty).kobj;
            to_result(bindings::kobject_init_and_add(
                kobj,
                &raw const KTYPE.0,
                core::ptr::null_mut(),
                c"%s-%s".as_char_ptr(),
                bindings::dev_driver_string(parent.raw_device()),
                (*ty).sysfs_name,
            ))
            .inspect_err(|_| bindings::kobject_put(kobj))?;
            (*ty).devices_kobj = bindings::kobject_create_and_add(c"devices".as_char_ptr(), kobj);
            if (*ty).devices_kobj.is_null() {
                bindings::kobject_del(kobj);
                bindings::kobject_put(kobj);
                return Err(ENOMEM);
            }
        }
        Ok(())
    }

    /// Removes the type from sysfs.
    pub(crate) fn remove(&self) {
        // SAFETY: By the type invariant. These are the references that `add` took.
        unsafe {
            bindings::kobject_put(self.devices_kobject());
            bindings::kobject_del(self.kobject());
            bindings::kobject_put(self.kobject());
        }
    }

    // --- Attributes ---------------------------------------------------------------------------

    fn device_api(&self) -> &CStr {
        // SAFETY: The `device_api` of a registered driver is set.
        unsafe { CStr::from_char_ptr(self.parent().driver().device_api) }
    }

    fn name(&self) -> &CStr {
        // SAFETY: A driver sets the names of a type before it registers the type.
        unsafe {
            let (name, sysfs_name) = ((*self.as_ptr()).pretty_name, (*self.as_ptr()).sysfs_name);
            CStr::from_char_ptr(if name.is_null() { sysfs_name } else { name })
        }
    }

    fn available_instances(&self) -> u32 {
        match self.parent().driver().get_available {
            // SAFETY: The type belongs to the driver.
            Some(available) => unsafe { available(self.as_ptr()) },
            None => bus::available(self.parent().key()).unwrap_or(0),
        }
    }

    fn description(&self, page: *mut c_char) -> Result<isize> {
        let show = self.parent().driver().show_description.ok_or(EIO)?;
        // SAFETY: The type belongs to the driver, and `page` is the buffer that sysfs passed.
        let ret = unsafe { show(self.as_ptr(), page) };
        to_result(ret.min(0) as c_int)?;
        Ok(ret)
    }
}

static CREATE: Table<bindings::attribute> = Table(sysfs::attribute(c"create", 0o200));
static DEVICE_API: Table<bindings::attribute> = Table(sysfs::attribute(c"device_api", 0o444));
static NAME: Table<bindings::attribute> = Table(sysfs::attribute(c"name", 0o444));
static AVAILABLE: Table<bindings::attribute> =
    Table(sysfs::attribute(c"available_instances", 0o444));
static DESCRIPTION: Table<bindings::attribute> = Table(sysfs::attribute(c"description", 0o444));

static ATTRIBUTES: Table<[*const bindings::attribute; 6]> = Table([
    &raw const CREATE.0,
    &raw const DEVICE_API.0,
    &raw const NAME.0,
    &raw const AVAILABLE.0,
    &raw const DESCRIPTION.0,
    core::ptr::null(),
]);

static GROUP: Table<bindings::attribute_group> = Table({
    let mut group: bindings::attribute_group = pin_init::zeroed();
    group.__bindgen_anon_1.is_visible_const = Some(is_visible_callback);
    group.__bindgen_anon_2.attrs_const = (&raw const ATTRIBUTES.0).cast();
    group
});

static GROUPS: Table<[*const bindings::attribute_group; 2]> =
    Table([&raw const GROUP.0, core::ptr::null()]);

static SYSFS_OPS: Table<bindings::sysfs_ops> = Table(bindings::sysfs_ops {
    show: Some(show_callback),
    store: Some(store_callback),
});

static KTYPE: Table<bindings::kobj_type> = Table({
    let mut ktype: bindings::kobj_type = pin_init::zeroed();
    ktype.release = Some(release_callback);
    ktype.sysfs_ops = &raw const SYSFS_OPS.0;
    ktype.default_groups = (&raw const GROUPS.0).cast_mut().cast();
    ktype
});

/// # Safety
///
/// Called by sysfs with the kobject of a type that is being added.
unsafe extern "C" fn is_visible_callback(
    kobj: *mut bindings::kobject,
    attribute: *const bindings::attribute,
    _index: c_int,
) -> bindings::umode_t {
    // SAFETY: By this function's contract. `add` has set the parent.
    let described = unsafe { Type::from_kobject(kobj) }
        .parent()
        .driver()
        .show_description
        .is_some();
    if core::ptr::eq(attribute, &raw const DESCRIPTION.0) && !described {
        return 0;
    }
    // SAFETY: sysfs passes one of the attributes above.
    unsafe { (*attribute).mode }
}

/// # Safety
///
/// Called by sysfs with the kobject of a visible type and a page to fill.
unsafe extern "C" fn show_callback(
    kobj: *mut bindings::kobject,
    attribute: *mut bindings::attribute,
    page: *mut c_char,
) -> isize {
    // SAFETY: By this function's contract.
    let ty = unsafe { Type::from_kobject(kobj) };
    // SAFETY: By this function's contract.
    from_result(|| unsafe {
        match attribute.cast_const() {
            a if core::ptr::eq(a, &raw const DEVICE_API.0) => {
                Ok(sysfs::show_text(page, ty.device_api()))
            }
            a if core::ptr::eq(a, &raw const NAME.0) => Ok(sysfs::show_text(page, ty.name())),
            a if core::ptr::eq(a, &raw const AVAILABLE.0) => {
                sysfs::show(page, ty.available_instances())
            }
            a if core::ptr::eq(a, &raw const DESCRIPTION.0) => ty.description(page),
            _ => Err(EIO),
        }
    })
}

/// # Safety
///
/// Called by sysfs with the kobject of a visible type and the bytes that were written.
unsafe extern "C" fn store_callback(
    kobj: *mut bindings::kobject,
    attribute: *mut bindings::attribute,
    page: *const c_char,
    count: usize,
) -> isize {
    // SAFETY: By this function's contract.
    let ty = unsafe { Type::from_kobject(kobj) };
    // SAFETY: By this function's contract.
    let text = unsafe { core::slice::from_raw_parts(page.cast(), count) };
    from_result(|| {
        if !core::ptr::eq(attribute.cast_const(), &raw const CREATE.0) {
            return Err(EIO);
        }
        device::create(ty, text)?;
        Ok(count as isize)
    })
}

/// # Safety
///
/// Called with the kobject of a type that has no references left.
unsafe extern "C" fn release_callback(kobj: *mut bindings::kobject) {
    // SAFETY: By this function's contract. The reference to the parent's device, which `add` took,
    // still exists.
    unsafe { bindings::put_device(Type::from_kobject(kobj).parent().raw_device()) };
}
