// SPDX-License-Identifier: GPL-2.0

//! The lock of the table of groups, and the KVM instance that is associated with a group, for
//! drivers that use `vfio_device.kvm`.
//!
//! VFIO must not depend on the KVM module. It looks up KVM's functions at run time, which also pins
//! the module.

use core::ptr::NonNull;

use kernel::{
    prelude::*,
    sync::global_lock, //
};
use kernel_ext::bindings;

use super::registry::Registry;

global_lock! {
    // SAFETY: `init_lock` initialises it before the module can be used.
    pub(super) unsafe(uninit) static GROUPS: Mutex<Registry> = Registry::new();
}

/// Initialises the lock of the table of groups. Module init calls this once, before anything else
/// uses it.
pub(crate) fn init_lock() {
    // SAFETY: By this function's contract.
    unsafe { GROUPS.init() };
}

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
    pub(crate) unsafe fn new(kvm: *mut bindings::kvm) -> Option<Self> {
        // INVARIANT: By this function's contract.
        NonNull::new(kvm).map(Self)
    }

    /// Takes a reference to the instance. Returns `None` if the instance is being destroyed or KVM
    /// is not loaded.
    pub(crate) fn get(&self) -> Option<KvmRef> {
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
            // SAFETY: The instance is valid by the type invariant. The symbol's reference was taken
            // above.
            unsafe {
                let got = get(self.0.as_ptr());
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
        let put: PutKvm = unsafe { core::mem::transmute(put) };
        // INVARIANT: Both references were taken.
        Some(KvmRef { kvm: self.0, put })
    }
}

const GET: &CStr = c"kvm_get_kvm_safe";
const PUT: &CStr = c"kvm_put_kvm";

type PutKvm = unsafe extern "C" fn(*mut bindings::kvm);

/// A reference to a KVM instance.
///
/// # Invariants
///
/// Holds a reference to the KVM instance and one to the symbol `kvm_put_kvm`, whose address is
/// `put`.
pub(crate) struct KvmRef {
    kvm: NonNull<bindings::kvm>,
    put: PutKvm,
}

impl KvmRef {
    /// Gives up ownership, so that a `struct vfio_device` can hold the reference.
    pub(crate) fn into_raw(self) -> (NonNull<bindings::kvm>, PutKvm) {
        let this = core::mem::ManuallyDrop::new(self);
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
        unsafe {
            (self.put)(self.kvm.as_ptr());
            bindings::__symbol_put(PUT.as_char_ptr());
        }
    }
}
