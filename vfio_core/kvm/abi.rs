// SPDX-License-Identifier: GPL-2.0

//! The KVM instance that is associated with a group or a device file, for drivers that use `vfio_device.kvm`.
//!
//! VFIO must not depend on the KVM module. It looks up KVM's functions at run time, which also pins
//! the module.

use core::{
    ffi::c_void,
    mem::{
        transmute,
        ManuallyDrop, //
    },
    ptr::NonNull, //
};

use kernel::prelude::*;
use kernel_ext::{
    bindings,
    symbol::Symbol, //
};

/// A KVM instance that is associated with a group or a device file.
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
    pub(crate) unsafe fn new(kvm: *mut bindings::kvm) -> Option<Self> {
        // INVARIANT: By this function's contract.
        NonNull::new(kvm).map(Self)
    }

    /// Takes a reference to the instance. Returns `None` if the instance is being destroyed or KVM
    /// is not loaded.
    pub(crate) fn get(&self) -> Option<KvmRef> {
        let put = Symbol::get(PUT)?;
        let get = Symbol::get(c"kvm_get_kvm_safe")?;
        // SAFETY: The function with this name has this type.
        let get_fn = unsafe { transmute::<*mut c_void, GetKvm>(get.address()) };
        // SAFETY: The instance is valid by the type invariant.
        let got = unsafe { get_fn(self.0.as_ptr()) };
        if !got {
            return None;
        }
        let put = ManuallyDrop::new(put).address();
        // SAFETY: The function with this name has this type.
        let put = unsafe { transmute::<*mut c_void, PutKvm>(put) };
        // INVARIANT: Both references were taken.
        Some(KvmRef { kvm: self.0, put })
    }
}

const PUT: &CStr = c"kvm_put_kvm";

type GetKvm = unsafe extern "C" fn(*mut bindings::kvm) -> bool;
type PutKvm = unsafe extern "C" fn(*mut bindings::kvm);

/// A reference to a KVM instance.
///
/// # Invariants
///
/// Holds a reference to the KVM instance, and one to the symbol `kvm_put_kvm`. `put` is the
/// function with this name.
pub(crate) struct KvmRef {
    kvm: NonNull<bindings::kvm>,
    put: PutKvm,
}

impl KvmRef {
    /// Gives up ownership, so that a `struct vfio_device` can hold the reference.
    pub(crate) fn into_raw(self) -> (NonNull<bindings::kvm>, PutKvm) {
        let this = ManuallyDrop::new(self);
        (this.kvm, this.put)
    }

    /// Takes ownership back.
    ///
    /// # Safety
    ///
    /// The arguments are from [`KvmRef::into_raw`], and the caller does not use them again.
    pub(crate) unsafe fn from_raw(kvm: NonNull<bindings::kvm>, put: PutKvm) -> Self {
        // INVARIANT: By this function's contract.
        Self { kvm, put }
    }
}

impl Drop for KvmRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { (self.put)(self.kvm.as_ptr()) };
        // SAFETY: By the type invariant. Nothing calls the function after this.
        drop(unsafe { Symbol::from_raw(PUT, self.put as *mut c_void) });
    }
}
