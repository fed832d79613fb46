// SPDX-License-Identifier: GPL-2.0

//! The KVM instance associated with a group, for drivers that use `vfio_device.kvm`.
//!
//! VFIO must not depend on the KVM module. It looks up KVM's functions at run time, which also pins
//! the module.

use core::ptr::NonNull;

use kernel::{
    prelude::*,
    sync::aref::ARef, //
};
use kernel_ext::bindings;

use super::{
    device::Device,
    device_set::SetGuard, //
};

/// A KVM instance that is associated with a group.
///
/// # Invariants
///
/// The instance is valid as long as this value exists.
pub(crate) struct Kvm(NonNull<bindings::kvm>);

// SAFETY: The pointer is only passed back to KVM.
unsafe impl Send for Kvm {}

impl Kvm {
    /// # Safety
    ///
    /// `kvm` is null, or valid until the result is dropped.
    pub(super) unsafe fn new(kvm: *mut bindings::kvm) -> Option<Self> {
        // INVARIANT: By this function's contract.
        NonNull::new(kvm).map(Self)
    }
}

const GET: &CStr = c"kvm_get_kvm_safe";
const PUT: &CStr = c"kvm_put_kvm";

/// A reference from a device to a KVM instance.
///
/// # Invariants
///
/// Holds a reference to the KVM instance and one to the symbol `kvm_put_kvm`, whose address is
/// `put`.
pub(crate) struct KvmRef {
    device: ARef<Device>,
    kvm: NonNull<bindings::kvm>,
    put: unsafe extern "C" fn(*mut bindings::kvm),
}

// SAFETY: Any task may drop the reference.
unsafe impl Send for KvmRef {}

impl KvmRef {
    /// Makes the device of `set` refer to `kvm`. Returns `None` if the instance is being destroyed
    /// or KVM is not loaded.
    pub(crate) fn get(set: &SetGuard<'_>, kvm: &Kvm) -> Option<Self> {
        let device = set.device();
        // SAFETY: The names are C strings.
        let put = unsafe { bindings::__symbol_get(PUT.as_char_ptr()) };
        if put.is_null() {
            return None;
        }
        // SAFETY: As above.
        let get = unsafe { bindings::__symbol_get(GET.as_char_ptr()) };
        let got = !get.is_null() && {
            // SAFETY: The function with this name has this type.
            let get: unsafe extern "C" fn(*mut bindings::kvm) -> bool =
                unsafe { core::mem::transmute(get) };
            // SAFETY: The instance is valid by the invariant of `Kvm`. The symbol's reference was
            // taken above.
            unsafe {
                let got = get(kvm.0.as_ptr());
                bindings::__symbol_put(GET.as_char_ptr());
                got
            }
        };
        if !got {
            // SAFETY: The symbol's reference was taken above.
            unsafe { bindings::__symbol_put(PUT.as_char_ptr()) };
            return None;
        }
        // SAFETY: As for `get`.
        let put: unsafe extern "C" fn(*mut bindings::kvm) = unsafe { core::mem::transmute(put) };
        // SAFETY: The set's lock guards the fields.
        unsafe {
            (*device.as_ptr()).kvm = kvm.0.as_ptr();
            (*device.as_ptr()).put_kvm = Some(put);
        }
        // INVARIANT: Both references were taken.
        Some(Self {
            device: device.into(),
            kvm: kvm.0,
            put,
        })
    }
}

impl Drop for KvmRef {
    /// The caller holds the lock of the device's set, as for all steps of a device's last close.
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the set's lock guards the fields.
        unsafe {
            (*self.device.as_ptr()).kvm = core::ptr::null_mut();
            (*self.device.as_ptr()).put_kvm = None;
            (self.put)(self.kvm.as_ptr());
            bindings::__symbol_put(PUT.as_char_ptr());
        }
    }
}
