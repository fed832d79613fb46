// SPDX-License-Identifier: GPL-2.0

//! The virtual machine that a group was linked with, for drivers that ask `vfio_device.kvm`.
//!
//! KVM is a module that VFIO must not depend on, so its functions are looked up at run time, which
//! also pins it.

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

/// A virtual machine; the VFIO device of KVM unlinks it before it goes.
#[derive(Clone, Copy)]
pub(crate) struct Kvm(NonNull<bindings::kvm>);

// SAFETY: Only passed back to KVM.
unsafe impl Send for Kvm {}

impl Kvm {
    pub(super) fn new(kvm: *mut bindings::kvm) -> Option<Self> {
        NonNull::new(kvm).map(Self)
    }
}

const GET: &CStr = c"kvm_get_kvm_safe";
const PUT: &CStr = c"kvm_put_kvm";

/// A virtual machine that a device refers to.
///
/// # Invariants
///
/// Holds a reference to the machine and one to the symbol `kvm_put_kvm`, whose address is `put`.
pub(crate) struct KvmRef {
    device: ARef<Device>,
    kvm: NonNull<bindings::kvm>,
    put: unsafe extern "C" fn(*mut bindings::kvm),
}

// SAFETY: The reference may be put by any task.
unsafe impl Send for KvmRef {}

impl KvmRef {
    /// Lets the device of `set` refer to `kvm`, unless that is on its way out. Called with the
    /// lock held under which the machine is unlinked.
    pub(crate) fn get(set: &SetGuard<'_>, kvm: Kvm) -> Option<Self> {
        let device = set.device();
        // SAFETY: The names are strings.
        let put = unsafe { bindings::__symbol_get(PUT.as_char_ptr()) };
        if put.is_null() {
            return None;
        }
        // SAFETY: As above.
        let get = unsafe { bindings::__symbol_get(GET.as_char_ptr()) };
        let got = !get.is_null() && {
            // SAFETY: These are the types of the functions with these names.
            let get: unsafe extern "C" fn(*mut bindings::kvm) -> bool =
                unsafe { core::mem::transmute(get) };
            // SAFETY: The machine is linked, so it is valid; the symbol was got above.
            unsafe {
                let got = get(kvm.0.as_ptr());
                bindings::__symbol_put(GET.as_char_ptr());
                got
            }
        };
        if !got {
            // SAFETY: Got above.
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
    /// Runs with the lock of the device's set held, like everything at a device's last close.
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
