// SPDX-License-Identifier: GPL-2.0

//! The system's default allocator.

use core::{
    cell::UnsafeCell,
    ptr, //
};

use kernel::prelude::*;

use super::Space;

/// The address of the system's space between module init and module exit.
///
/// # Invariants
///
/// It is only written by module init and module exit, when no other code can read it.
struct Place(UnsafeCell<*const Space>);

// SAFETY: By the type invariant no thread reads it while it is written.
unsafe impl Sync for Place {}

static PLACE: Place = Place(UnsafeCell::new(ptr::null()));

/// Returns the system's space.
///
/// It is for modules that depend on this one, whose functions refer to this symbol, and for the
/// tests of this module. The space exists whenever their code can run.
pub fn system() -> &'static Space {
    // SAFETY: This function cannot be called before the end of module init or after the start of
    // module exit. In between the pointer is that of the space that `Installed` owns.
    unsafe { &**PLACE.0.get() }
}

/// The space that is the system's space.
pub(crate) struct Installed(Pin<KBox<Space>>);

impl Installed {
    /// Makes `space` the system's space. Module init calls it once.
    pub(crate) fn new(space: Pin<KBox<Space>>) -> Self {
        // SAFETY: Module init runs once, and no other code can call this module before it ends.
        // INVARIANT: As above.
        unsafe { PLACE.0.get().write(ptr::from_ref(&*space)) };
        Self(space)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.0.check_unused();
        // SAFETY: No code calls this module any more. INVARIANT: As above.
        unsafe { PLACE.0.get().write(ptr::null()) };
    }
}
